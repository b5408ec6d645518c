"""Neighbours speak one language: everything that takes text to ids is compared, not the vocabulary alone."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AddedToken, PreTrainedTokenizerFast

from colpipe.errors import ColpipeError
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.learngene.tokenizers import require_same_tokenizer, require_tokenizer_rows
from tests.conftest import make_tokenizer

MERGES = [("a", "b"), ("b", "c")]
PIECES = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5, "ab": 6, "bc": 7}


def saved(folder: Path, merges=MERGES, pieces=PIECES, added=(), eos="</s>", pad=None, bos="<s>", **parts) -> Path:
    """A small BPE tokenizer in a folder; `parts` are those of its pipeline."""
    raw = Tokenizer(models.BPE(pieces, merges, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, part in parts.items():
        setattr(raw, name, part)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token=bos, eos_token=eos, pad_token=pad)
    made.add_tokens(list(added))
    made.save_pretrained(folder)
    return folder


DIFFERENT = [
    (
        {"added": ["<|im_start|>"]},
        {"added": ["<think>"]},
        r"id 8 is '<\|im_start\|>' in the first, '<think>' in the second",
    ),
    ({"added": ["<think>"]}, {}, "id 8 is '<think>' in the first, no token in the second"),
    ({"pieces": {**PIECES, "a": 4, "b": 3}}, {}, "id 3 is 'b' in the first, 'a' in the second"),
    ({"merges": MERGES[::-1]}, {}, r'model\.merges\.0\.0 is "b" in the first, "a" in the second'),
    ({"eos": "<s>"}, {}, "the eos token is '<s>' in the first, '</s>' in the second"),
    ({"bos": None}, {}, "the bos token is None in the first, '<s>' in the second"),
    ({"pad": "<unk>"}, {"pad": "</s>"}, "the pad token is '<unk>' in the first, '</s>' in the second"),
    ({"normalizer": normalizers.Lowercase()}, {}, r'normalizer is \{"type": "Lowercase"\} in the first, null in the'),
    (
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False)},
        "pre_tokenizer.add_prefix_space is true in the first, false in the second",
    ),
    (
        {"added": [AddedToken("<x>", lstrip=True)]},
        {"added": [AddedToken("<x>", lstrip=False)]},
        r"added_tokens\.<x>\.lstrip is true in the first, false in the second",
    ),
    (
        {"post_processor": processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])},
        {},
        r"what is put around a text is \[1\] in the first, \[\] in the second",
    ),
]


@pytest.mark.parametrize(
    ("one", "other", "message"), DIFFERENT, ids=lambda value: next(iter(value), "") if value else ""
)
def test_the_first_difference_is_named_with_both_values(tmp_path, one, other, message):
    small, large = saved(tmp_path / "small", **one), saved(tmp_path / "large", **other)
    with pytest.raises(
        ColpipeError, match=f"small and .*large have different tokenizers: {message}.*neighbours share one"
    ):
        require_same_tokenizer(small, large)


@pytest.mark.parametrize("one", [{"pad": "</s>"}, {"added": ["<x>"]}])
def test_the_same_tokenizer_saved_twice_or_with_padding_is_the_same(tmp_path, one):
    other = {key: value for key, value in one.items() if key != "pad"}
    require_same_tokenizer(saved(tmp_path / "small", **one), saved(tmp_path / "large", **other))


NFC, LOWER = normalizers.NFC(), normalizers.Lowercase()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"normalizer": normalizers.Sequence([NFC])}, {"normalizer": NFC}),
        ({"normalizer": normalizers.Sequence([])}, {}),
        (
            {"normalizer": normalizers.Sequence([normalizers.Sequence([NFC]), LOWER])},
            {"normalizer": normalizers.Sequence([NFC, LOWER])},
        ),
        ({"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])}, {}),
    ],
)
def test_a_sequence_of_one_step_is_that_step(tmp_path, one, other):
    require_same_tokenizer(saved(tmp_path / "small", **one), saved(tmp_path / "large", **other))


def test_the_order_of_steps_counts(tmp_path):
    folders = [
        saved(tmp_path / str(number), normalizer=normalizers.Sequence(steps))
        for number, steps in enumerate(([NFC, LOWER], [LOWER, NFC]))
    ]
    with pytest.raises(ColpipeError, match=r'normalizer\.normalizers\.0\.type is "NFC" in the first, "Lowercase" in'):
        require_same_tokenizer(*folders)


def test_what_ends_a_text_may_differ_where_that_is_asked_for(tmp_path):
    small, large = saved(tmp_path / "small", eos="<s>"), saved(tmp_path / "large")
    require_same_tokenizer(small, large, special_too=False)
    with pytest.raises(ColpipeError, match=r"id 8 is '<x>' .*; ask the owner"):
        require_same_tokenizer(saved(tmp_path / "more", added=["<x>"]), large, "ask the owner", special_too=False)


@pytest.fixture
def files(tmp_path) -> Path:
    """A tokenizer as GPT-2 was first published: vocab.json and merges.txt."""
    made = json.loads(
        make_tokenizer(["the old stone school by the river", "the other stones"], 300).backend_tokenizer.to_str()
    )
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(made["model"]["vocab"]))
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(pair) for pair in made["model"]["merges"])])
    )
    special = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "</s>")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **special}))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    return folder


def test_merges_in_a_file_of_their_own_are_compared(files, tmp_path):
    other = Path(shutil.copytree(files, tmp_path / "other"))
    require_same_tokenizer(files, other)
    lines = (other / "merges.txt").read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    (other / "merges.txt").write_text("\n".join(lines))
    with pytest.raises(ColpipeError, match=r"files and .*other have different tokenizers: model\.merges\.0"):
        require_same_tokenizer(files, other)


def test_files_and_tokenizer_json_may_be_the_same_tokenizer(files, tmp_path):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(files).save_pretrained(tmp_path / "json")
    require_same_tokenizer(files, tmp_path / "json")


def unreadable(folder: Path, content: bytes) -> Path:
    """A folder with a sentencepiece file alone, which is not one."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(content)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def test_what_cannot_be_loaded_is_compared_by_its_bytes(tmp_path):
    one, same, other = (unreadable(tmp_path / name, text) for name, text in (("a", b"\1"), ("b", b"\1"), ("c", b"\2")))
    require_same_tokenizer(one, same)
    message = r"a: its tokenizer \(tokenizer\.model\) cannot be loaded: .*; so it cannot be compared with .* of .*c:"
    with pytest.raises(ColpipeError, match=message):
        require_same_tokenizer(one, other)


class PanicException(BaseException):
    """As the tokenizers library raises it."""


@pytest.mark.parametrize(
    ("raised", "expected"), [(PanicException("oh"), ColpipeError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
@pytest.mark.parametrize("load", [load_tokenizer, lambda folder: require_same_tokenizer(folder, folder.parent / "b")])
def test_a_panic_of_the_library_is_refused_in_one_line_and_an_interrupt_stops(
    tmp_path, monkeypatch, raised, expected, load
):
    def fail(*args, **settings):
        raise raised

    one, _ = unreadable(tmp_path / "a", b"1"), unreadable(tmp_path / "b", b"2")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fail)
    with pytest.raises(expected):
        load(one)


def test_a_neighbour_without_a_tokenizer_is_taken_on_trust_and_said(tmp_path, caplog):
    (tmp_path / "small").mkdir()
    with caplog.at_level(logging.WARNING):
        require_same_tokenizer(tmp_path / "small", saved(tmp_path / "large"))
    assert "large: there is no tokenizer beside its neighbour; it is taken on trust" in caplog.text


@pytest.mark.parametrize("how", ["tokenizer.json", "vocab.json"])
def test_a_tokenizer_beyond_the_vocabulary_is_refused(tmp_path, files, how):
    folder = saved(tmp_path / "own", added=["<x>", "<y>"]) if how == "tokenizer.json" else files
    entries = 10 if how == "tokenizer.json" else len(json.loads((files / "vocab.json").read_text()))
    require_tokenizer_rows(folder, entries, "architecture.vocabulary")
    message = f"vocabulary: {entries - 1} rows of the embedding are less than the tokenizer's {entries} entries .*/"
    with pytest.raises(ColpipeError, match=message):
        require_tokenizer_rows(folder, entries - 1, "architecture.vocabulary")
