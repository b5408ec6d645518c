"""Prepared data as training sees it: packed blocks of a corpus, masked rows of instructions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from colpipe.data.encoding import begin_id, confused_ids, encode, encode_prompts
from colpipe.data.shards import Tokens
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import MANIFEST, read_manifest
from colpipe.jobs.job import Job

TOGETHER = 1000  # rows that are tokenised at a time
IGNORE = -100  # labels that carry no loss, the convention of torch and transformers


class Blocks(Dataset):
    """Blocks of a tokenised corpus, in its order, read from memory maps; every token carries loss.

    Where the corpus has a begin token (`begin_of`), it is the first of a block's tokens, and `length` − 1 are text.

    Args:
        folder: a prepared corpus.
        split: `train` or `validation`.
        length: tokens in a block.
        tokens: use this many tokens only, begin tokens among them, in blocks that are evenly spread over the split: texts
            are often sorted by subject, and the first of them are about one. None uses all.

    Raises:
        ColpipeError: the split has no shards, or fewer tokens than `tokens` asks for, or than one block; a block has no room
            for text.
    """

    def __init__(self, folder: Path, split: str, length: int, tokens: int | None = None):
        self.ids = Tokens(folder, split)
        if tokens is not None and tokens > len(self.ids):
            raise ColpipeError(f"{folder}: the {split} split has {len(self.ids):,} tokens, {tokens:,} were asked for")
        self.begin = begin_of(folder)
        self.length, self.text = length, length - (self.begin is not None)
        if not self.text:
            raise ColpipeError(f"{folder}: a block of {length} token holds its begin token alone; make blocks longer")
        self.all = len(self.ids) // self.text
        self.count = self.all if tokens is None else tokens // length
        if not self.count:
            wanted = len(self.ids) if tokens is None else tokens
            begins = "" if self.begin is None else ", its begin token with it"
            raise ColpipeError(
                f"{folder}: the {split} split's {wanted:,} tokens are less than a block ({length}{begins})"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = index * self.all // self.count * self.text
        ids = torch.from_numpy(self.ids.read(start, start + self.text))
        if self.begin is not None:
            ids = torch.cat([ids.new_tensor([self.begin]), ids])
        return {"input_ids": ids, "labels": ids.clone()}

    def stacked(self) -> torch.Tensor:
        """All of them at once, (blocks, length) of ids; for what looks at a few thousand tokens."""
        return torch.stack([self[index]["input_ids"] for index in range(len(self))])


def begin_of(folder: Path) -> int | None:
    """The token that blocks of a prepared corpus begin with, as its manifest says (`begin`); None: its tokenizer puts none
    before a text.

    Raises:
        ColpipeError: the manifest is damaged.
    """
    return read_manifest(folder).get("begin") if (folder / MANIFEST).exists() else None


class Rows(Dataset):
    """Prompts with answers as token ids, behind the begin token where the tokenizer puts one (`begin_id`); the loss is on
    the answer and its end-of-text only.

    No row is ever cut: one whose prompt, answer and end-of-text are longer than `length` together is left out and counted.

    Args:
        rows: mappings with `prompt` and `completion`.
        tokenizer: of the model that is trained.
        length: longest row, tokens.
        name: of the rows, for messages.

    Attributes:
        too_long: rows that were left out.
        special: special tokens that the tokenizer made of their text (`confused_ids`).

    Raises:
        ColpipeError: no row is left.
    """

    def __init__(self, rows: list[dict], tokenizer, length: int, name: str = "rows"):
        self.rows, self.name, self.length = [], name, length
        confused, self.special = set(confused_ids(tokenizer)), 0
        begins = begin_id(tokenizer) is not None
        shortest = None
        for head, tail, row in _encoded(rows, tokenizer):
            whole = [*head, *tail, tokenizer.eos_token_id]
            shortest = min(len(whole), shortest or len(whole))
            if len(whole) > length:
                continue
            ids = torch.tensor(whole)
            labels = ids.clone()
            labels[: len(head)] = IGNORE
            self.rows.append({"input_ids": ids, "labels": labels})
            if confused:  # a chat template's special tokens are meant
                texts = tail if isinstance(row["prompt"], list) else [*head[begins:], *tail]
                self.special += sum(number in confused for number in texts)
        self.too_long = len(rows) - len(self.rows)
        if not self.rows:
            raise ColpipeError(
                f"{name}: none of {len(rows):,} rows fits max_length {length} tokens whole (prompt, answer and end-of-text; "
                f"the shortest has {shortest}); raise it"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


def _encoded(rows: list[dict], tokenizer) -> Iterator[tuple[list[int], list[int], dict]]:
    """(prompt, answer, row) of each row, tokenised apart, so that the prompt is what generation starts from."""
    for start in range(0, len(rows), TOGETHER):
        part = rows[start : start + TOGETHER]
        heads = encode_prompts(tokenizer, [row["prompt"] for row in part])
        tails = encode(tokenizer, [row["completion"] for row in part])
        yield from zip(heads, tails, part, strict=True)


def account_for(job: Job, rows: Rows) -> None:
    """Say how many rows are not used, and why; the manifest has the numbers."""
    counts = {"rows": len(rows), "too_long": rows.too_long, "special": rows.special}
    job.manifest.setdefault("rows", {})[rows.name] = counts
    if rows.too_long:
        job.say(
            f"{rows.name}: {len(rows):,} of {len(rows) + rows.too_long:,} rows are used, {rows.too_long:,} were left out: "
            f"longer than max_length {rows.length} tokens"
        )
    if rows.special:
        job.say(
            f"{rows.name}: {rows.special:,} times the text of a special token became that token, which this tokenizer "
            "cannot keep as text"
        )


def require_batch(rows: Sequence[Rows], count: int, batch_size: int) -> None:
    """Refuse to train on what is left where rows were left out.

    Raises:
        ColpipeError: `count` items are less than a batch.
    """
    if count < batch_size and any(each.too_long for each in rows):
        left_out = sum(each.too_long for each in rows)
        names, length = ", ".join(each.name for each in rows), rows[0].length
        raise ColpipeError(
            f"{names}: {count:,} are left after {left_out:,} rows longer than max_length {length} tokens were left out, "
            f"less than one batch ({batch_size}); raise max_length"
        )


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
