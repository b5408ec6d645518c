"""How much of an evaluation set is in the training data: equal rows, and rows that share 13 words in a row with it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

WORDS = 13  # in a row, GPT-3's measure (Brown et al. 2020, Appendix C)
Row = Mapping[str, str]  # {text}, or {instruction, input, output}


def words(text: str) -> list[str]:
    """Letters and digits, lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def overlaps(evaluated: Mapping[str, Sequence[Row]], trained: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Count, for each evaluation set, the rows that training data have.

    Args:
        evaluated: name → rows of its test split; held in memory.
        trained: rows of one training set; streamed.

    Returns:
        name → `rows` in all; `exact`: rows whose words are those of a training row; `overlapping`: those, and rows that
        share 13 words in a row with one.
    """
    whole: dict[int, set[tuple[str, int]]] = {}
    runs: dict[int, set[tuple[str, int]]] = {}
    for name, rows in evaluated.items():
        for number, row in enumerate(rows):
            whole.setdefault(_whole(row), set()).add((name, number))
            for run in _runs(row):
                runs.setdefault(run, set()).add((name, number))
    equal, shared = set(), set()
    for row in trained:
        equal |= whole.get(_whole(row), set())
        for run in _runs(row):
            if run in runs:
                shared |= runs[run]
    return {
        name: {
            "rows": len(rows),
            "exact": sum(own == name for own, _ in equal),
            "overlapping": sum(own == name for own, _ in equal | shared),
        }
        for name, rows in evaluated.items()
    }


def _whole(row: Row) -> int:
    return hash(tuple(words("\n".join(row.get(name, "") for name in ("text", "instruction", "input", "output")))))


def _runs(row: Row) -> Iterator[int]:
    """Hashes of all runs of 13 words. Of rows with an input, the instruction does not count: it is the same in every row of
    many data sets, and no leak of any of them."""
    if row.get("input"):
        parts = [row["input"], row["output"]]
    else:
        parts = [row.get("text") or f"{row['instruction']}\n{row['output']}"]
    for part in parts:
        found = words(part)
        for start in range(len(found) - WORDS + 1):
            yield hash(tuple(found[start : start + WORDS]))
