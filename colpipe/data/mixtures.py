"""Several prepared data sets as one to train or validate on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from colpipe.config.constants import VALIDATION_ITEMS
from colpipe.data.encoding import encode
from colpipe.data.rows import read_rows
from colpipe.data.shards import shard_path
from colpipe.data.tokens import Blocks, Rows, account_for
from colpipe.jobs.job import Job


def mixed(datasets: Sequence[Dataset]) -> Dataset:
    """Several data sets as one; shuffling mixes them item by item."""
    return datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)


def validation_items(dataset: Dataset) -> Dataset:
    """`VALIDATION_ITEMS` of a data set, evenly spread over it."""
    count = min(VALIDATION_ITEMS, len(dataset))
    return Subset(dataset, [item * len(dataset) // count for item in range(count)])


def split_kinds(folders: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """(prepared instructions, prepared corpora)."""
    folders = list(folders)
    corpora = [folder for folder in folders if shard_path(folder, "train", 0).exists()]
    return [folder for folder in folders if folder not in corpora], corpora


def _names(job: Job) -> dict[Path, str]:
    """Folder → name of a job's prepared data: a manifest names data, whatever folder they lie in."""
    return {folder: name for name, folder in job.parents_of("data").items()}


def items_of(job: Job, folders: Iterable[Path], split: str, tokenizer, length: int) -> tuple[list[Rows], list[Blocks]]:
    """Rows of the instructions and blocks of the corpora among prepared data."""
    instructions, corpora = split_kinds(folders)
    names = _names(job)
    rows = [Rows(read_rows(folder, split), tokenizer, length, f"{names[folder]} {split}") for folder in instructions]
    for each in rows:
        account_for(job, each)
    return rows, [Blocks(folder, split, length) for folder in corpora]


def validation_of(job: Job, folders: Iterable[Path], tokenizer, length: int) -> Dataset:
    """The validation items of each of the data sets."""
    rows, text = items_of(job, folders, "validation", tokenizer, length)
    return mixed([validation_items(each) for each in (*rows, *text)])


def prompts_of(job: Job, folders: Iterable[Path], tokenizer, longest: int) -> list[torch.Tensor]:
    """Token ids of the training prompts of the instructions among prepared data that are not longer than this; how many
    are longer is said, and in the manifest."""
    found, names = [], _names(job)
    for folder in split_kinds(folders)[0]:
        prompts = encode(tokenizer, [row["prompt"] for row in read_rows(folder, "train")])
        kept = [torch.tensor(prompt) for prompt in prompts if len(prompt) <= longest]
        left_out = len(prompts) - len(kept)
        job.manifest.setdefault("prompts", {})[names[folder]] = {"prompts": len(kept), "too_long": left_out}
        if left_out:
            job.say(
                f"{names[folder]}: {len(kept):,} of {len(prompts):,} prompts are completed, {left_out:,} were left out: "
                f"longer than {longest} tokens"
            )
        found += kept
    return found
