"""Prepared data as training sees it: packed blocks of a corpus, masked rows of instructions."""

import json
from pathlib import Path

import torch
from torch.utils.data import Dataset

from colpipe.data.prompts import chat_prompt, prompt
from colpipe.data.shards import Tokens
from colpipe.errors import ColpipeError

IGNORE = -100  # labels that carry no loss, the convention of torch and transformers


class Blocks(Dataset):
    """Consecutive blocks of a tokenised corpus, read from memory maps; every token carries loss.

    Args:
        folder: a prepared corpus.
        split: `train` or `validation`.
        length: tokens in a block.
        tokens: use the first this many tokens only; None uses all.

    Raises:
        ColpipeError: the split has no shards, or fewer tokens than `tokens` asks for, or than one block.
    """

    def __init__(self, folder: Path, split: str, length: int, tokens: int | None = None):
        self.ids = Tokens(folder, split)
        if tokens is not None and tokens > len(self.ids):
            raise ColpipeError(f"{folder}: the {split} split has {len(self.ids):,} tokens, {tokens:,} were asked for")
        self.length = length
        self.count = min(tokens or len(self.ids), len(self.ids)) // length
        if not self.count:
            raise ColpipeError(
                f"{folder}: the {split} split's {len(self.ids):,} tokens are less than a block ({length})"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.ids.read(index * self.length, (index + 1) * self.length))
        return {"input_ids": ids, "labels": ids.clone()}


class Rows(Dataset):
    """Prompts with answers as token ids; the loss is on the answer and its end-of-text only.

    Args:
        rows: mappings with `prompt` and `completion`.
        tokenizer: of the model that is trained.
        length: rows are cut to this many tokens; rows whose prompt alone fills it are left out.

    Raises:
        ColpipeError: no row is left.
    """

    def __init__(self, rows: list[dict], tokenizer, length: int):
        self.rows = []
        for row in rows:
            head = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
            tail = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            if len(head) < length:
                ids = torch.tensor((head + tail)[:length])
                labels = ids.clone()
                labels[: len(head)] = IGNORE
                self.rows.append({"input_ids": ids, "labels": labels})
        if not self.rows:
            raise ColpipeError(f"no row's prompt is shorter than max_length {length} tokens; raise it")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]

    def prompts(self, longest: int) -> list[torch.Tensor]:
        """Token ids of the prompts that are not longer than this."""
        prompts = [row["input_ids"][row["labels"] == IGNORE] for row in self.rows]
        return [prompt for prompt in prompts if len(prompt) <= longest]


def read_rows(folder: Path, split: str, chat=None, needed: bool = True) -> list[dict]:
    """Rows of prepared instructions, with their `prompt` and its `completion`.

    Args:
        chat: a tokenizer, to have prompts in its chat template; None: in the paper's.
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


def collate(pad: int):
    """Function that pads rows on the right into a batch: ids (B, T), labels (B, T), attention mask (B, T).

    Other columns that rows have, (T, …) beside their labels, are padded with 0.
    """

    def padded(rows: list[dict], name: str, fill: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill)

    def pad_batch(rows: list[dict]) -> dict[str, torch.Tensor]:
        fills = {"input_ids": pad, "labels": IGNORE}
        masked = [{**row, "attention_mask": torch.ones_like(row["input_ids"])} for row in rows]
        return {name: padded(masked, name, fills.get(name, 0)) for name in masked[0]}

    return pad_batch
