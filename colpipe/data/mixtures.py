"""Several prepared data sets as one to train or validate on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch.utils.data import ConcatDataset, Dataset, Subset

from colpipe.config.constants import VALIDATION_ITEMS
from colpipe.data.shards import shard_path
from colpipe.data.tokens import Blocks, Rows, read_rows


def mixed(datasets: Sequence[Dataset]) -> Dataset:
    """Several data sets as one; shuffling mixes them item by item."""
    return datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)


def validation_items(dataset: Dataset) -> Dataset:
    """The first `VALIDATION_ITEMS` of a data set."""
    return Subset(dataset, range(min(VALIDATION_ITEMS, len(dataset))))


def split_kinds(folders: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """(prepared instructions, prepared corpora)."""
    folders = list(folders)
    corpora = [folder for folder in folders if shard_path(folder, "train", 0).exists()]
    return [folder for folder in folders if folder not in corpora], corpora


def items_of(folders: Iterable[Path], split: str, tokenizer, length: int) -> tuple[list[Rows], list[Blocks]]:
    """Rows of the instructions and blocks of the corpora among prepared data."""
    instructions, corpora = split_kinds(folders)
    rows = [Rows(read_rows(folder, split), tokenizer, length) for folder in instructions]
    return rows, [Blocks(folder, split, length) for folder in corpora]


def validation_of(folders: Iterable[Path], tokenizer, length: int) -> Dataset:
    """The first validation items of each of the data sets."""
    rows, text = items_of(folders, "validation", tokenizer, length)
    return mixed([validation_items(each) for each in (*rows, *text)])
