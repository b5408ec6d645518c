"""BLiMP (nyu-mll/blimp, and the JSON lines of its own release): {sentence_good, sentence_bad, UID}.

All rows are for testing, whatever files are called. The kind of a row is its paradigm (UID: `adjunct_island`). Whole
sentences are compared, in the order of the alphabet, which says nothing of the right one. Rows whose sentences differ in
punctuation only are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import equal_choices, likelihood
from colpipe.data.files import rows_of


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"sentence_good": str, "sentence_bad": str, "UID": str}):
        sentences = sorted((row["sentence_good"], row["sentence_bad"]))
        if equal_choices(sentences):
            yield {"left_out": "sentences that cannot be told apart", "place": place}
            continue
        yield {
            "place": place,
            "id": place.id,
            "group": place.id,
            "split": "test",
            "kind": row["UID"],
            "instruction": "Which of these sentences is good English? Write it out.",
            "input": "\n".join(sentences),
            "output": row["sentence_good"],
            "choices": sentences,
            "likelihood": likelihood("", sentences),
        }
