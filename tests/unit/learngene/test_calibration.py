"""Text as the token ids that a model is measured and fitted on."""

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from colpipe.errors import ColpipeError
from colpipe.learngene.calibration import token_batches
from tests.unit.learngene.test_api import with_tokenizer

END = 2


@pytest.fixture
def speaker(gpt2, tmp_path):
    """A model folder with a tokenizer that knows w3 … w39."""
    return with_tokenizer(gpt2.large_folder, tmp_path / "speaker")


def test_texts_end_with_a_token_of_their_own_and_fill_rows(speaker):
    batches = token_batches(speaker, ["w3 w4", "w5 </s> w6"], 100, positions=4)
    ids = torch.cat([batch.flatten() for batch in batches]).tolist()
    assert ids[:4] == [3, 4, END, 5] and ids[-2:] == [6, END]
    assert END not in ids[4:-1]  # what looks like a special token is text
    assert [batch.shape[0] for batch in batches] == [len(ids) // 4, *([1] if len(ids) % 4 else [])]


@pytest.mark.parametrize("kind", ["string", "list", "path", "name", "ids"])
def test_every_kind_of_text_gives_the_same_ids(speaker, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    text = " ".join(f"w{number}" for number in range(3, 40))
    (tmp_path / "words").write_text(text)
    given = {"string": text, "list": [text], "path": tmp_path / "words", "name": "words"}
    given["ids"] = torch.tensor([*range(3, 40), END])
    batches = token_batches(speaker, given[kind], 35, positions=16)
    assert [tuple(batch.shape) for batch in batches] == [(2, 16), (1, 3)]
    assert torch.cat([batch.flatten() for batch in batches]).tolist() == [*range(3, 35), 38, 39, END]


def test_fewer_tokens_than_there_are_are_spread_over_the_text(speaker):
    """A text that is sorted by subject is not fitted on its first subject alone."""
    [batch] = token_batches(speaker, torch.arange(100), 40, positions=8)
    assert batch[:, 0].tolist() == [0, 16, 32, 56, 72]
    [batch] = token_batches(speaker, torch.arange(60).view(20, 3), 15, positions=8)
    assert batch[:, 0].tolist() == [0, 12, 24, 36, 48]


def test_rows_of_ids_stay_rows(speaker):
    ids = torch.arange(60).view(20, 3)
    batches = token_batches(speaker, ids, 31, positions=16)
    assert [tuple(batch.shape) for batch in batches] == [(8, 3), (3, 3)]  # whole rows, for no fewer than 31 tokens


def test_fewer_tokens_than_asked_for_are_said(speaker, caplog):
    token_batches(speaker, torch.arange(10), 11, positions=16)
    assert "the text has 10 tokens, 11 were asked for: all are used" in caplog.text


def test_a_file_that_is_no_text_is_refused(speaker, tmp_path):
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\xff")
    said = r"words.txt: cannot be read as a text file: is not UTF-8 \(invalid start byte 0xff\) in line 1; convert it first"
    with pytest.raises(ColpipeError, match=said + ": iconv -f latin1 -t utf-8 .*words.txt > NEW"):
        token_batches(speaker, tmp_path / "words.txt", 10, positions=16)


def test_rows_begin_with_the_token_that_the_tokenizer_puts_there(gpt2, tmp_path):
    """Beside as many tokens of the text as are asked for; ids may begin with it already, and rows of ids stay rows."""
    folder = with_tokenizer(gpt2.large_folder, tmp_path / "speaker")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save_pretrained(folder)
    ids = torch.arange(3, 40)
    for text in (" ".join(f"w{number}" for number in range(3, 40)), ids, torch.tensor([1, *range(3, 40)])):
        batches = token_batches(folder, text, 35, positions=16)
        assert [tuple(batch.shape) for batch in batches] == [(2, 16), (1, 6)]
        assert all(batch[:, 0].tolist() == [1] * len(batch) for batch in batches)
        assert torch.cat([batch[:, 1:].flatten() for batch in batches[:1]]).tolist() == list(range(3, 33))
    [rows] = token_batches(folder, torch.arange(12).view(4, 3), 12, positions=16)
    assert rows.tolist() == torch.arange(12).view(4, 3).tolist()


def test_ids_of_a_model_whose_tokenizer_cannot_be_read_begin_with_no_token_and_it_is_said(speaker, caplog):
    (speaker / "tokenizer.json").write_text("{}")
    [batch] = token_batches(speaker, torch.arange(8), 8, positions=4)
    assert batch.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert "speaker: holds no tokenizer that can be loaded" in caplog.text
    assert "no begin token is put before rows of these ids" in caplog.text
