"""Several prepared data sets as one to train or validate on."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from colpipe.config.constants import VALIDATION_ITEMS
from colpipe.data.encoding import encode_prompts
from colpipe.data.interleaving import largest_mixture
from colpipe.data.rows import read_rows
from colpipe.data.shards import shard_path
from colpipe.data.tokens import Blocks, Rows, account_for
from colpipe.errors import ColpipeError
from colpipe.jobs.job import Job


def mixed(datasets: Sequence[Dataset]) -> Dataset:
    """Several data sets as one; shuffling mixes them item by item."""
    return datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)


def spread(dataset: Dataset, count: int) -> Dataset:
    """So many items of a data set, evenly spread over it."""
    return Subset(dataset, [item * len(dataset) // count for item in range(count)])


def validation_items(dataset: Dataset) -> Dataset:
    """`VALIDATION_ITEMS` of a data set, evenly spread over it."""
    return spread(dataset, min(VALIDATION_ITEMS, len(dataset)))


def shared_counts(lengths: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """How many items each data set gives so that they have these shares of all: as many as there are without repetition.

    Raises:
        ColpipeError: one would give none.
    """
    most = largest_mixture(lengths, weights)
    counts = {name: min(lengths[name], round(most * weights[name])) for name in lengths}
    for name in lengths:
        if not counts[name]:
            scarcest = min(lengths, key=lambda each: lengths[each] / weights[each])
            raise ColpipeError(
                f"data: a weight of {weights[name]:g} leaves none of the {lengths[name]:,} rows or blocks of {name}: "
                f"there are {lengths[scarcest]:,} of {scarcest} ({weights[scarcest]:g}); give {name} a larger weight"
            )
    return counts


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


def training_of(
    job: Job, folders: Iterable[Path], tokenizer, length: int, weights: Mapping[str, float] | None = None
) -> tuple[list[Rows], Dataset]:
    """(rows of the instructions among prepared data, items that are trained on): all of each, or by weights; how many of
    each is said then, and in the manifest."""
    folders = list(folders)
    rows, text = items_of(job, folders, "train", tokenizer, length)
    if not weights:
        return rows, mixed([*rows, *text])
    named = _by_name(job, folders, [*rows, *text])
    counts = shared_counts({name: len(items) for name, items in named.items()}, weights)
    job.manifest["mixture"] = {name: {"used": counts[name], "of": len(items)} for name, items in named.items()}
    used, total = [f"{name} {counts[name]:,} of {len(items):,}" for name, items in named.items()], sum(counts.values())
    shares = ", ".join(f"{each} ({counts[name] / total:.1%})" for name, each in zip(named, used, strict=True))
    job.say(f"rows and blocks by weight: {shares}; the others are left out")
    return rows, mixed([spread(items, counts[name]) for name, items in named.items()])


def validation_of(
    job: Job, folders: Iterable[Path], tokenizer, length: int, weights: Mapping[str, float] | None = None
) -> Dataset:
    """The validation items of each of the data sets; by weights as many of each as have their shares."""
    folders = list(folders)
    rows, text = items_of(job, folders, "validation", tokenizer, length)
    items = [validation_items(each) for each in (*rows, *text)]
    if not weights:
        return mixed(items)
    named = _by_name(job, folders, items)
    counts = shared_counts({name: len(each) for name, each in named.items()}, weights)
    return mixed([spread(each, counts[name]) for name, each in named.items()])


def _by_name(job: Job, folders: Sequence[Path], items: Sequence[Dataset]) -> dict[str, Dataset]:
    """Name → data set of each folder, instructions first, as `items_of` has them."""
    names = _names(job)
    return {names[folder]: each for folder, each in zip(chain(*split_kinds(folders)), items, strict=True)}


def prompts_of(job: Job, folders: Iterable[Path], tokenizer, longest: int) -> list[torch.Tensor]:
    """Token ids of the training prompts of the instructions among prepared data that are not longer than this; how many
    are longer is said, and in the manifest."""
    found, names = [], _names(job)
    for folder in split_kinds(folders)[0]:
        prompts = encode_prompts(tokenizer, [row["prompt"] for row in read_rows(folder, "train")])
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
