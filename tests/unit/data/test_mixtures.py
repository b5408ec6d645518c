"""What is distilled on by weights: each data set's share of the items, evenly spread, counted and said."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import ConcatDataset

from colpipe.data.mixtures import shared_counts, training_of, validation_of
from colpipe.errors import ColpipeError
from tests.conftest import write_tokens

LENGTH = 4  # tokens of a block


@pytest.fixture
def job(tmp_path):
    """Two corpora whose block number n holds n four times: 60 training blocks of `wiki`, 20 of `own`."""
    folders = {}
    for name, blocks in (("wiki", 60), ("own", 20)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for split in ("train", "validation"):
            write_tokens(folders[name], split, np.repeat(np.arange(blocks, dtype=np.uint16), LENGTH))
    said = []
    return SimpleNamespace(manifest={}, said=said, say=said.append, parents_of=lambda _: folders)


def blocks(items) -> list[int]:
    return [int(items[index]["input_ids"][0]) for index in range(len(items))]


def test_each_data_set_gives_its_share_as_many_as_there_are():
    assert shared_counts({"a": 100, "b": 30}, {"a": 0.7, "b": 0.3}) == {"a": 70, "b": 30}
    assert shared_counts({"a": 100, "b": 30}, {"a": 7, "b": 3}) == {"a": 70, "b": 30}
    assert shared_counts({"a": 100, "b": 30}, {"a": 1, "b": 0.1}) == {"a": 100, "b": 10}
    assert shared_counts({"a": 9, "b": 9, "c": 9}, {"a": 1, "b": 1, "c": 1}) == {"a": 9, "b": 9, "c": 9}
    with pytest.raises(ColpipeError, match=r"data: a weight of 0\.001 leaves none of the 30 rows or blocks of b"):
        shared_counts({"a": 100, "b": 30}, {"a": 1, "b": 0.001})


def test_weights_take_evenly_spread_blocks_and_say_how_many(job):
    folders: list[Path] = list(job.parents_of("data").values())
    rows, items = training_of(job, folders, None, LENGTH, {"own": 1, "wiki": 2})
    assert rows == [] and blocks(items) == [*(n * 60 // 40 for n in range(40)), *range(20)]
    assert job.manifest == {"mixture": {"wiki": {"used": 40, "of": 60}, "own": {"used": 20, "of": 20}}}
    assert job.said == [
        "rows and blocks by weight: wiki 40 of 60 (66.7%), own 20 of 20 (33.3%); the others are left out"
    ]


def test_without_weights_all_of_each_is_taken_and_nothing_said(job):
    _, items = training_of(job, job.parents_of("data").values(), None, LENGTH)
    assert isinstance(items, ConcatDataset) and blocks(items) == [*range(60), *range(20)]
    assert job.manifest == {} and job.said == []


def test_validation_has_the_same_shares(job):
    items = validation_of(job, job.parents_of("data").values(), None, LENGTH, {"own": 1, "wiki": 1})
    assert blocks(items) == [*(n * 60 // 20 for n in range(20)), *range(20)]
