"""Prepared instructions as text, for all who read them: training, scores, reports (no torch here)."""

import json
from pathlib import Path

from colpipe.config.parts import Prompts
from colpipe.data.prompts import chat_prompt, prompt
from colpipe.errors import ColpipeError

PREPARED = "prompt_ids"  # of a row whose prompt was prepared in the chat template of the chain's tokenizer


def read_rows(
    folder: Path, split: str, prompts: Prompts | None = None, tokenizer=None, needed: bool = True
) -> list[dict]:
    """Rows of prepared instructions, with their `prompt` and its `completion`.

    Args:
        prompts: `chat`: in the chat template of `tokenizer`, as token ids; `paper`: in the paper's, as text; None: as they
            were prepared for the chain.
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
        if prompts == "chat":
            row["prompt"] = chat_prompt(tokenizer, *question)
        else:
            row["prompt"] = (prompts is None and row.get(PREPARED)) or prompt(*question)
        row["completion"] = row["output"]
    return rows
