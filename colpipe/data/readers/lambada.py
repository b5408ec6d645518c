"""LAMBADA (EleutherAI/lambada_openai, cimec/lambada): {text}, whose last word is asked for.

Rows of `test` and `validation` files are what their names say, those of files that say nothing are for testing; `train`
has whole novels, which are documents.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import rows_of, split_in_name
from colpipe.data.last_word import last_word_row


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"text": str}):
        split = {None: "test", "dev": "validation"}.get(named := split_in_name(place.name), named)
        base = {"place": place, "id": place.id, "group": place.id, "split": split}
        context, _, word = row["text"].rpartition(" ")  # as lm-eval cuts it
        if split == "train":
            yield {**base, "text": row["text"].strip()}
        elif context.strip() and word.strip():
            yield {**base, **last_word_row(context, word)}
        else:
            yield {"left_out": "no last word", "place": place}
