"""What a model keeps of its ancestor, and what guessing scores: compared row by row (no torch here)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from colpipe.config.stages import Task
from colpipe.data.rows import read_rows
from colpipe.errors import ColpipeError
from colpipe.evaluation.scores import RESAMPLES, Values, guessing, interval, percent
from colpipe.hashing import key_of

ALL = "all tasks"  # stands where a task does, whose name has no blank
KEPT = "kept"
DIFFERENCE = "_difference"  # after the metric that is compared
STANDARD_ERRORS = 2  # that an ancestor has to be above chance by


def comparisons(
    rows: Mapping[str, Sequence[dict]], scores: Mapping[str, Path], ancestors: Mapping[str, str]
) -> dict[str, list[dict]]:
    """Every model beside its ancestor, with 95 % intervals by the percentile bootstrap over rows, the same each time: both
    are scored on the same rows of each resample.

    Args:
        rows: task → its test rows.
        scores: model → folder of its scores. One that was not scored on a task has no rows there.
        ancestors: model → the one that it is compared with.

    Returns:
        model → rows of task, metric, value, low, high. `<metric>_difference`: its score less the ancestor's, points of a
        hundred. `kept`: (score - chance) / (ancestor's score - chance), percent, where the ancestor is above chance by two
        standard errors; of `ALL`, its mean over these tasks, for a model that has all of them.

    Raises:
        ColpipeError: a model was scored on other rows.
    """
    found: dict[str, list[dict]] = {model: [] for model in scores}
    kept: dict[str, dict[str, tuple[float, np.ndarray]]] = {model: {} for model in scores}
    for task, tested in rows.items():
        metric, chance = measure(tested), chances(tested)
        tables = {model: _read(folder / "rows" / f"{task}.csv", tested) for model, folder in scores.items()}
        columns = {model: table[metric].to_numpy(float) for model, table in tables.items() if table is not None}
        resampled = _means_of_resamples({**columns, "": chance}, task)
        for model in columns:
            if (ancestor := ancestors[model]) not in columns:
                continue
            own, theirs = columns[model], columns[ancestor]
            difference = 100 * (resampled[model] - resampled[ancestor])
            found[model].append(_row(task, metric + DIFFERENCE, 100 * (own.mean() - theirs.mean()), difference))
            if is_above(theirs, chance):
                with np.errstate(divide="ignore", invalid="ignore"):  # an ancestor may be at chance in a resample
                    shares = (resampled[model] - resampled[""]) / (resampled[ancestor] - resampled[""])
                share = (own.mean() - chance.mean()) / (theirs.mean() - chance.mean())
                kept[model][task] = 100 * share, 100 * shares
                found[model].append(_row(task, KEPT, *kept[model][task]))
    for model, shares_of in kept.items():
        if shares_of and set(shares_of) == set(kept[ancestors[model]]):
            values, resamples = zip(*shares_of.values(), strict=True)
            found[model].append(_row(ALL, KEPT, float(np.mean(values)), np.mean(resamples, 0)))
    return found


def comparison(rows: Mapping[str, Sequence[dict]], own: Path, ancestor: Path) -> list[dict]:
    """One model beside its ancestor, from the folders of their scores: the rows of `comparisons`, without a mean over `ALL`
    where the ancestor was scored on tasks that are not among these."""
    found = comparisons(rows, {"own": own, "ancestor": ancestor}, dict.fromkeys(("own", "ancestor"), "ancestor"))["own"]
    lacks = {path.stem for path in (ancestor / "rows").glob("*.csv")} - rows.keys()
    return [row for row in found if not lacks or row["task"] != ALL]


def measure(rows: Sequence[dict]) -> str:
    """The metric by which models are compared. It is by the length of choices where they differ in their number of words and
    follow a context; whole sentences and single words count as they are."""
    if "choices" not in rows[0]:
        return "last_word"
    texts = (row["likelihood"] for row in rows)
    by_length = any(
        all(each["contexts"]) and len({len(text.split()) for text in each["continuations"]}) > 1 for each in texts
    )
    return "likelihood_normalised" if by_length else "likelihood"


def chances(rows: Sequence[dict]) -> np.ndarray:
    """Of each row (N,), how probable it is to choose right at random; 0 without choices."""
    return np.array([1 / len(row["choices"]) if "choices" in row else 0.0 for row in rows])


def is_above(values: np.ndarray, chance: np.ndarray) -> bool:
    """Whether a score is above chance by two standard errors of the difference; a single row cannot tell.

    Args:
        values: of each row (N,); chance too.
    """
    above = values - chance
    return (
        len(above) > 1 and above.mean() > 0 and above.mean() >= STANDARD_ERRORS * above.std(ddof=1) / len(above) ** 0.5
    )


def _read(path: Path, rows: Sequence[dict]) -> pd.DataFrame | None:
    if not path.exists():
        return None
    table = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
    if table.id.tolist() != [row["id"] for row in rows]:
        raise ColpipeError(f"{path}: its rows are not those that the task has now; score the model anew")
    return table


def _means_of_resamples(columns: Mapping[str, np.ndarray], task: str) -> dict[str, np.ndarray]:
    """Of columns of rows (N,) the means over resamples of these rows (RESAMPLES,), which all columns share."""
    table, random = np.stack(list(columns.values())), np.random.default_rng(int(key_of(task), 16))
    count = table.shape[1]
    drawn = (np.bincount(random.integers(count, size=count), minlength=count) for _ in range(RESAMPLES))
    means = np.stack([table @ times / count for times in drawn])
    return dict(zip(columns, means.T, strict=True))


def _row(task: str, metric: str, value: float, resampled: np.ndarray) -> dict:
    low, high = np.nanpercentile(resampled, (2.5, 97.5))
    return {"task": task, "metric": metric, "value": float(value), "low": float(low), "high": float(high)}


def guesses(task: Task, folder: Path, trained: Path) -> Iterator[dict]:
    """What a task scores without reading the question: rows of `init` (`majority` or `chance`), metric, value, low, high.

    Args:
        folder: prepared instructions with the test rows.
        trained: those with the training rows.
    """
    train, test = read_rows(trained, "train") if task.fine_tune else [], read_rows(folder, "test")
    found: dict[str, Values] = guessing(train, test) if task.max_new_tokens else {}
    if task.likelihood and "choices" in test[0]:
        chance = chances(test).tolist()
        found["chance"] = {**found.get("chance", {}), "likelihood": chance, "likelihood_normalised": chance}
    for init, values in found.items():
        for metric, value in percent(values).items():
            low, high = (100 * end for end in interval(values[metric]) or (np.nan, np.nan))
            yield {"init": init, "metric": metric, "value": value, "low": low, "high": high}
