import re

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from colpipe.config.parts import Runtime
from colpipe.config.stages import Training
from colpipe.data import shards
from colpipe.data.tokens import IGNORE, Blocks, Rows, account_for, collate, require_batch
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import write_json
from tests.conftest import make_beginning_tokenizer, make_tokenizer, make_word_tokenizer, open_job, write_tokens


def test_blocks_are_consecutive_and_a_budget_is_spread_over_them(tmp_path):
    write_tokens(tmp_path, "train", np.arange(100, dtype=np.uint16))
    blocks = Blocks(tmp_path, "train", 8)
    assert len(blocks) == 12
    assert blocks[2]["input_ids"].tolist() == list(range(16, 24)) == blocks[2]["labels"].tolist()
    some = Blocks(tmp_path, "train", 8, tokens=50)
    assert [some[index]["input_ids"][0].item() // 8 for index in range(len(some))] == [0, 2, 4, 6, 8, 10]
    most = Blocks(tmp_path, "train", 8, tokens=90)
    assert [most[index]["input_ids"][0].item() // 8 for index in range(len(most))] == list(range(11))
    whole = Blocks(tmp_path, "train", 8, tokens=100)
    assert [whole[index]["input_ids"][0].item() // 8 for index in range(len(whole))] == list(range(12))


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
        list(range(start, start + 8)) for start in range(0, 96, 16)
    ]


def test_blocks_begin_with_the_token_that_the_corpus_says(tmp_path):
    """It is one of a block's tokens, and of those that are asked for; no text is lost for it."""
    write_tokens(tmp_path, "train", np.arange(100, dtype=np.uint16))
    write_json(tmp_path / "manifest.json", {"files": {}, "begin": 200})
    blocks = Blocks(tmp_path, "train", 8)
    assert len(blocks) == 100 // 7 and blocks.stacked().shape == (14, 8)
    assert [each.tolist() for each in blocks.stacked()] == [[200, *range(at, at + 7)] for at in range(0, 98, 7)]
    assert blocks[3]["labels"].tolist() == blocks[3]["input_ids"].tolist()
    some = Blocks(tmp_path, "train", 8, tokens=56)  # 7 blocks of 8
    assert [each.tolist() for each in some.stacked()] == [[200, *range(at, at + 7)] for at in range(0, 98, 14)]
    assert len(Blocks(tmp_path, "train", 8, tokens=100)) == 12
    assert len(Blocks(tmp_path, "train", 101)) == 1
    with pytest.raises(ColpipeError, match=r"100 tokens are less than a block \(102, its begin token with it\)"):
        Blocks(tmp_path, "train", 102)
    with pytest.raises(ColpipeError, match="a block of 1 token holds its begin token alone; make blocks longer"):
        Blocks(tmp_path, "train", 1)


def test_more_tokens_than_there_are_is_refused(tmp_path):
    write_tokens(tmp_path, "train", np.arange(100, dtype=np.uint16))
    with pytest.raises(ColpipeError, match="the train split has 100 tokens, 101 were asked for"):
        Blocks(tmp_path, "train", 8, tokens=101)
    with pytest.raises(ColpipeError, match=r"100 tokens are less than a block \(200\)"):
        Blocks(tmp_path, "train", 200)
    with pytest.raises(ColpipeError, match=r"7 tokens are less than a block \(8\)"):
        Blocks(tmp_path, "train", 8, tokens=7)


def test_rows_carry_loss_on_the_answer_and_its_end(tmp_path):
    tokenizer = make_tokenizer(["a small test"], 300)
    [row] = Rows([{"prompt": "a b ", "completion": "c"}], tokenizer, 100)
    head = tokenizer("a b ")["input_ids"]
    assert row["input_ids"].tolist() == [*head, *tokenizer("c")["input_ids"], tokenizer.eos_token_id]
    assert row["labels"].tolist() == [IGNORE] * len(head) + row["input_ids"].tolist()[len(head) :]


@pytest.fixture
def letters():
    """A tokenizer that takes every letter for itself, and rows of 3 to 8 tokens."""
    tokenizer = make_tokenizer(["a"], 257)
    return tokenizer, [{"prompt": "p" * head, "completion": "c" * tail} for head in (1, 4) for tail in (1, 2, 3)]


def test_rows_that_do_not_fit_are_left_out_whole(letters):
    tokenizer, rows = letters
    for length, kept in ((8, 6), (7, 5), (6, 4), (5, 3), (4, 2), (3, 1)):
        found = Rows(rows, tokenizer, length)
        assert (len(found), found.too_long, found.special) == (kept, len(rows) - kept, 0)
        for row in found:
            ids, labels = row["input_ids"].tolist(), row["labels"].tolist()
            assert len(ids) <= length and ids[-1] == labels[-1] == tokenizer.eos_token_id
            assert tokenizer.decode([id_ for id_ in labels[:-1] if id_ != IGNORE]) in ("c", "cc", "ccc")
    message = r"describe train: none of 6 rows fits max_length 2 tokens whole \(.*; the shortest has 3\); raise it"
    with pytest.raises(ColpipeError, match=message):
        Rows(rows, tokenizer, 2, "describe train")


def test_less_than_a_batch_is_refused_where_rows_were_left_out(letters):
    tokenizer, rows = letters
    require_batch([Rows(rows, tokenizer, 8)], 6, 16)  # all that there is
    require_batch([Rows(rows, tokenizer, 5, "a"), Rows(rows, tokenizer, 8, "b")], 9, 9)
    message = "a, b: 9 are left after 3 rows longer than max_length 5 tokens were left out, less than one batch (10)"
    with pytest.raises(ColpipeError, match=re.escape(message)):
        require_batch([Rows(rows, tokenizer, 5, "a"), Rows(rows, tokenizer, 8, "b")], 9, 10)


def test_what_is_left_out_is_said_and_recorded(letters, tmp_path, capfd):
    tokenizer, rows = letters
    rows = [{**row, "completion": row["completion"] + "</s>"} for row in rows]
    job = open_job("sft", tmp_path / "out", tmp_path / "work", Training(), Runtime(), {}, 0)
    for name, maker in (("letters", tokenizer), ("words", make_word_tokenizer())):
        account_for(job, Rows(rows, maker, 9, f"{name} train"))
    job.close()
    assert job.manifest["rows"] == {
        "letters train": {"rows": 3, "too_long": 3, "special": 0},
        "words train": {"rows": 6, "too_long": 0, "special": 0},
    }
    said = "letters train: 3 of 6 rows are used, 3 were left out: longer than max_length 9 tokens"
    assert said in capfd.readouterr().err


def test_special_tokens_in_rows_are_text_or_counted():
    row = {"prompt": "a </s> b ", "completion": "c </s> d"}
    tokenizer = make_tokenizer(["a"], 257)
    [found] = Rows([row], tokenizer, 100)
    assert found["input_ids"].tolist().count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(found["input_ids"][:-1]) == row["prompt"] + row["completion"]
    assert Rows([row], make_word_tokenizer(), 100).special == 2
    assert Rows([{**row, "prompt": [0, 5, 0]}], make_word_tokenizer(), 100).special == 1  # a template's are meant


@pytest.mark.parametrize("prompt", ["a b ", "<s> a"])
def test_rows_begin_with_the_token_that_the_tokenizer_puts_there(prompt):
    tokenizer = make_beginning_tokenizer(["a small test"], 300, end=True)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    head, tail = tokenizer([prompt, "c"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    for given in (prompt, [begin, *head]):  # the second is what a chat template that writes it makes
        rows = Rows([{"prompt": given, "completion": "c"}], tokenizer, len(head) + 3)
        assert rows[0]["input_ids"].tolist() == [begin, *head, *tail, end] and rows.special == 0
        assert rows[0]["labels"].tolist() == [IGNORE] * (1 + len(head)) + [*tail, end]
    with pytest.raises(ColpipeError, match=rf"the shortest has {len(head) + 3}\)"):
        Rows([{"prompt": prompt, "completion": "c"}], tokenizer, len(head) + 2)


def test_the_begin_token_of_a_row_is_not_counted_as_text():
    """Of a tokenizer that makes special tokens of their text: what is in the row is, what stands before it is not."""
    tokenizer = make_word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 0)])
    rows = Rows([{"prompt": "</s> a </s>", "completion": "b"}], tokenizer, 100)
    assert rows[0]["input_ids"].tolist()[:2] == [0, 0] and rows.special == 2


def test_collate_pads_on_the_right():
    rows = [{"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)} for ids in ([5, 6, 7], [8])]
    batch = collate(0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["labels"].tolist() == [[5, 6, 7], [8, IGNORE, IGNORE]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
