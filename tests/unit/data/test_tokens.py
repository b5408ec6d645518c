import numpy as np
import pytest
import torch

from colpipe.data import shards
from colpipe.data.tokens import IGNORE, Blocks, Rows, collate
from colpipe.errors import ColpipeError
from tests.conftest import make_tokenizer, write_tokens


def test_blocks_are_consecutive_and_a_budget_is_their_beginning(tmp_path):
    write_tokens(tmp_path, "train", np.arange(100, dtype=np.uint16))
    blocks = Blocks(tmp_path, "train", 8)
    assert len(blocks) == 12
    assert blocks[2]["input_ids"].tolist() == list(range(16, 24)) == blocks[2]["labels"].tolist()
    assert len(Blocks(tmp_path, "train", 8, tokens=50)) == 6


def test_blocks_cross_the_borders_of_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SIZE", 30)
    write_tokens(tmp_path, "train", np.arange(100, dtype=np.uint16))
    assert len(list(tmp_path.glob("train-?????.npy"))) == 4
    for length in (8, 30, 31, 70):
        blocks = Blocks(tmp_path, "train", length)
        found = [blocks[index]["input_ids"].tolist() for index in range(len(blocks))]
        assert found == [list(range(start, start + length)) for start in range(0, 100 - length + 1, length)]
    budget = Blocks(tmp_path, "train", 8, tokens=50)
    assert [budget[index]["input_ids"].tolist() for index in range(6)] == [
        list(range(start, start + 8)) for start in range(0, 48, 8)
    ]


def test_more_tokens_than_there_are_is_refused(tmp_path):
    write_tokens(tmp_path, "train", np.arange(100, dtype=np.uint16))
    with pytest.raises(ColpipeError, match="the train split has 100 tokens, 101 were asked for"):
        Blocks(tmp_path, "train", 8, tokens=101)
    with pytest.raises(ColpipeError, match=r"100 tokens are less than a block \(200\)"):
        Blocks(tmp_path, "train", 200)


def test_rows_carry_loss_on_the_answer_and_its_end(tmp_path):
    tokenizer = make_tokenizer(["a small test"], 300)
    [row] = Rows([{"prompt": "a b ", "completion": "c"}], tokenizer, 100)
    head = tokenizer("a b ")["input_ids"]
    assert row["input_ids"].tolist() == [*head, *tokenizer("c")["input_ids"], tokenizer.eos_token_id]
    assert row["labels"].tolist() == [IGNORE] * len(head) + row["input_ids"].tolist()[len(head) :]
    with pytest.raises(ColpipeError, match="no row's prompt is shorter than max_length 2"):
        Rows([{"prompt": "a b c d", "completion": "c"}], tokenizer, 2)


def test_collate_pads_on_the_right():
    rows = [{"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)} for ids in ([5, 6, 7], [8])]
    batch = collate(0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["labels"].tolist() == [[5, 6, 7], [8, IGNORE, IGNORE]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
