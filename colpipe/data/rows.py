"""Prepared instructions as text, for all who read them: training, scores, reports (no torch here)."""

import json
from pathlib import Path

from colpipe.data.prompts import chat_prompt, prompt
from colpipe.errors import ColpipeError


def read_rows(folder: Path, split: str, chat=None, needed: bool = True) -> list[dict]:
    """Rows of prepared instructions, with their `prompt` and its `completion`.

    Args:
        chat: a tokenizer, to have prompts in its chat template, as token ids; None: in the paper's, as text.
        needed: whether an empty split is an error.

    Raises:
        ColpipeError: the split is empty, or the tokenizer has no chat template.
    """
    with open(folder / f"{split}.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    if needed and not rows:
        raise ColpipeError(f"{folder}: the {split} split has no rows")
    for row in rows:
        question = (row["instruction"], row["input"])
        row |= {"prompt": chat_prompt(chat, *question) if chat else prompt(*question), "completion": row["output"]}
    return rows
