"""What models keep of their ancestor, against resampling row by row and against scipy's bootstrap."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from colpipe.errors import ColpipeError
from colpipe.hashing import key_of
from colpipe.reporting.kept import ALL, comparison, comparisons, is_above, measure

ROWS = 400
SHARES = {
    "piqa": (0.74, 0.64),
    "siqa": (0.43, 0.41),
    "words": (0.5, 0.3),
    "guessed": (0.34, 0.5),
}  # ancestor's, model's
CHANCE = {"piqa": 1 / 2, "siqa": 1 / 3, "words": 0, "guessed": 1 / 3}
METRIC = {**dict.fromkeys(("piqa", "siqa", "guessed"), "likelihood_normalised"), "words": "last_word"}


def test_rows(task: str, count: int = ROWS) -> list[dict]:
    choices = round(1 / CHANCE[task]) if CHANCE[task] else 0
    texts = {"contexts": ["Q"] * max(1, choices), "continuations": [f" a{' b' * n}" for n in range(max(1, choices))]}
    more = {"choices": [f"a{n}" for n in range(choices)]} if choices else {}
    return [{"id": f"rows.jsonl:{n}", "likelihood": texts, **more} for n in range(count)]


test_rows.__test__ = False  # no test


def write(folder, task: str, values: np.ndarray, ids: list[str] | None = None):
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    columns = {METRIC[task]: values, "answer_bits_per_byte": 1.5}
    frame = pd.DataFrame({"id": ids or [row["id"] for row in test_rows(task, len(values))], **columns})
    frame.to_csv(folder / "rows" / f"{task}.csv", index=False, float_format="%.6g")
    return folder


@pytest.fixture
def values() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Task → the ancestor's and the model's score of each row; where the model is right the ancestor mostly is, too."""
    random, found = np.random.default_rng(0), {}
    for task, shares in SHARES.items():
        drawn = random.uniform(size=ROWS)
        ancestor = drawn < shares[0]
        found[task] = ancestor.astype(float), (np.where(random.uniform(size=ROWS) < 0.2, random.permutation(drawn), drawn)
                                               < shares[1]).astype(float)  # fmt: skip
    return found


@pytest.fixture
def scored(values, tmp_path):
    for task, (ancestor, model) in values.items():
        write(tmp_path / "ancestor", task, ancestor)
        write(tmp_path / "model", task, model)
    return {name: tmp_path / name for name in ("ancestor", "model")}


def compared(scored, tasks=tuple(SHARES), **ancestors) -> dict[str, dict[tuple[str, str], dict]]:
    rows = {task: test_rows(task) for task in tasks}
    found = comparisons(rows, scored, {**dict.fromkeys(scored, "ancestor"), **ancestors})
    return {model: {(row["task"], row["metric"]): row for row in each} for model, each in found.items()}


def shares_of_resamples(task: str, ancestor: np.ndarray, model: np.ndarray) -> np.ndarray:
    """The kept share, drawn row by row."""
    random, found = np.random.default_rng(int(key_of(task), 16)), []
    for _ in range(1000):
        drawn = random.integers(ROWS, size=ROWS)
        found.append((np.mean(model[drawn]) - CHANCE[task]) / (np.mean(ancestor[drawn]) - CHANCE[task]))
    return 100 * np.array(found)


def test_kept_is_the_share_of_the_ancestors_lead_with_the_interval_of_paired_resamples(scored, values):
    found = compared(scored)["model"]
    kept = [task for task, metric in found if metric == "kept"]
    assert kept == ["piqa", "siqa", "words", ALL]  # of the fourth, the ancestor is at chance
    means = []
    for task in kept[:3]:
        ancestor, model = values[task]
        row, reference = found[task, "kept"], shares_of_resamples(task, ancestor, model)
        share = 100 * (model.mean() - CHANCE[task]) / (ancestor.mean() - CHANCE[task])
        assert row["value"] == pytest.approx(share)
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(reference, (2.5, 97.5))))
        means.append((share, reference))
    over_all, resamples = np.mean([share for share, _ in means]), np.mean([each for _, each in means], 0)
    assert found[ALL, "kept"]["value"] == pytest.approx(over_all)
    assert found[ALL, "kept"]["low"] == pytest.approx(np.percentile(resamples, 2.5))
    assert found[ALL, "kept"]["high"] == pytest.approx(np.percentile(resamples, 97.5))
    assert found == compared(scored)["model"]  # the same each time


def test_intervals_are_about_scipys(scored, values):
    found, (ancestor, model) = compared(scored)["model"], values["piqa"]

    def share(ancestor, model, axis):
        return (model.mean(axis) - 1 / 2) / (ancestor.mean(axis) - 1 / 2)

    given = {"paired": True, "method": "percentile", "n_resamples": 4000, "rng": 1}
    theirs = bootstrap((ancestor, model), share, **given).confidence_interval
    row = found["piqa", "kept"]
    width = row["high"] - row["low"]
    assert abs(row["low"] - 100 * theirs.low) < 0.15 * width and abs(row["high"] - 100 * theirs.high) < 0.15 * width

    row = found["piqa", "likelihood_normalised_difference"]
    theirs = bootstrap((model - ancestor,), np.mean, method="percentile", rng=1).confidence_interval
    assert row["value"] == pytest.approx(100 * (model.mean() - ancestor.mean())) and row["value"] < 0
    assert row["low"] == pytest.approx(100 * theirs.low, abs=0.6)
    assert row["high"] == pytest.approx(100 * theirs.high, abs=0.6)
    unpaired = 1.96 * 100 * np.sqrt((ancestor.var() + model.var()) / ROWS)
    assert row["high"] - row["low"] < 0.8 * 2 * unpaired  # what both have in common drops out


def test_an_ancestor_keeps_all_of_itself_and_where_it_is_at_chance_there_are_differences_alone(scored):
    found = compared(scored)
    assert {row["value"] for (_, metric), row in found["ancestor"].items() if metric == "kept"} == {100}
    assert all(row["low"] == row["high"] == 100 for (_, m), row in found["ancestor"].items() if m == "kept")
    assert found["model"]["guessed", "likelihood_normalised_difference"]["value"] > 10
    only = compared(scored, ("guessed",))["model"]
    assert set(only) == {("guessed", "likelihood_normalised_difference")}


@pytest.mark.parametrize(
    ("right", "of", "above"),
    [
        (1, 1, False),  # one row tells nothing
        (4, 4, True),  # no spread
        (2, 4, False),
        (0, 4, False),
        (60, 100, True),  # 0.1 above, with a standard error of 0.0492
        (59, 100, False),
    ],
)
def test_above_chance_is_by_two_standard_errors(right, of, above):
    values = np.array([1.0] * right + [0.0] * (of - right))
    assert bool(is_above(values, np.full(of, 0.5))) == above


def test_one_row_has_a_difference_and_keeps_nothing(tmp_path):
    scored = {name: write(tmp_path / name, "piqa", np.array([value])) for name, value in (("a", 1.0), ("b", 0.0))}
    [row] = comparisons({"piqa": test_rows("piqa", 1)}, scored, {"a": "a", "b": "a"})["b"]
    assert row == {
        "task": "piqa",
        "metric": "likelihood_normalised_difference",
        "value": -100,
        "low": -100,
        "high": -100,
    }


def test_who_lacks_a_task_or_whose_ancestor_does_is_not_compared_there(scored):
    (scored["model"] / "rows" / "siqa.csv").unlink()
    found = compared(scored)["model"]
    assert ("siqa", "kept") not in found and ("piqa", "kept") in found
    assert (ALL, "kept") not in found  # the mean over fewer tasks is another one
    (scored["ancestor"] / "rows" / "piqa.csv").unlink()
    assert not [row for task, row in compared(scored)["model"] if task == "piqa"]


def test_scores_of_other_rows_are_refused(scored, values):
    ids = [f"rows.jsonl:{n + 1}" for n in range(ROWS)]
    write(scored["model"], "siqa", values["siqa"][1], ids)
    with pytest.raises(ColpipeError, match=r"model/rows/siqa.csv: its rows are not those .* score the model anew"):
        compared(scored)
    write(scored["model"], "siqa", values["siqa"][1][:-1])
    with pytest.raises(ColpipeError, match=r"model/rows/siqa.csv: its rows are not those .* score the model anew"):
        compared(scored)


@pytest.mark.parametrize(
    ("context", "continuations", "expected"),
    [
        ("Q", [" a b", " c"], "likelihood_normalised"),
        ("Q", [" A", " B"], "likelihood"),  # letters
        ("Q", [" yes", " no"], "likelihood"),
        ("", [" A b c.", " A b."], "likelihood"),  # whole sentences
    ],
)
def test_what_differs_in_words_is_compared_by_length(context, continuations, expected):
    row = {"choices": ["x", "y"], "likelihood": {"contexts": [context] * 2, "continuations": continuations}}
    assert measure([row]) == expected
    assert measure([{key: value for key, value in row.items() if key != "choices"}]) == "last_word"


def test_one_model_has_what_it_has_among_all_and_no_mean_where_it_lacks_a_task(scored):
    rows = {task: test_rows(task) for task in SHARES}
    assert (
        comparison(rows, scored["model"], scored["ancestor"])
        == comparisons(rows, scored, dict.fromkeys(scored, "ancestor"))["model"]
    )
    few = comparison({"piqa": rows["piqa"]}, scored["model"], scored["ancestor"])
    assert [(row["task"], row["metric"]) for row in few] == [
        ("piqa", "likelihood_normalised_difference"),
        ("piqa", "kept"),
    ]
