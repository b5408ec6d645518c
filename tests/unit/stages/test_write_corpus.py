"""The stage in which an ancestor writes a corpus: openings and what follows them, the same text after any kill."""

import json
import random

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM

from colpipe.config.needs import JobRuntime
from colpipe.config.parts import Written
from colpipe.data.encoding import encode
from colpipe.data.interleaving import spread_order
from colpipe.data.shards import NOTHING, Tokens, append, documents_in
from colpipe.data.tokenising import piece_maker
from colpipe.errors import ColpipeError
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.job import STOPPED
from colpipe.stages import write_corpus
from tests.conftest import WORDS, Killed, counting, make_beginning_tokenizer, make_tokenizer, open_job

SETTINGS = {"openings": "wiki", "opening": 6, "max_new_tokens": 10, "tokens": 400, "batch_size": 4}
DOCUMENTS = {"train": 60, "validation": 12, "test": 8}


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """A corpus of 60 documents, each tenth shorter than an opening, and two ancestors: of the chain's tokenizer, and not."""
    folder, chance = tmp_path_factory.mktemp("parents"), random.Random(0)
    texts = {
        split: [f"{n} {split}: " + " ".join(chance.choices(WORDS, k=12)) if n % 10 else "a" for n in range(count)]
        for split, count in DOCUMENTS.items()
    }
    tokenizer = make_tokenizer(texts["train"], 320)
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "wiki").mkdir()
    piece_of = piece_maker(load_tokenizer(folder / "tokenizer"))
    for split, documents in texts.items():
        append(folder / "wiki", split, NOTHING, piece_of(documents))
    for name, own in (("model", tokenizer), ("foreign", make_tokenizer(texts["test"], 290))):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=len(own), max_position_embeddings=64, eos_token_id=0, pad_token_id=0, **sizes)
        LlamaForCausalLM(config).save_pretrained(folder / name)
        own.save_pretrained(folder / name)
    return folder


@pytest.fixture
def run(tmp_path, parents):
    """Run the stage; a job may be changed before it starts."""

    def start(name: str, change=lambda job: None, model: str = "model", seed: int = 0, **settings):
        output, work = tmp_path / name, tmp_path / f"{name}.work"
        inputs = {"writer": parents / model, "openings": parents / "wiki", "tokenizer": parents / "tokenizer"}
        job = open_job(
            "write_corpus", output, work, Written(**{**SETTINGS, **settings}), JobRuntime(device="cpu"), inputs, seed
        )
        try:
            change(job)
            write_corpus.main(job)
        finally:
            job.close()
        return output

    return start


def documents(folder, split: str) -> list[list[int]]:
    tokens, ends = Tokens(folder, split), documents_in(folder, split)[0].tolist()
    return [tokens.read(a, b).tolist() for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def counts_of(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())["counts"]


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".npy"}


def test_greedy_text_is_what_the_model_gives_token_by_token(run, parents):
    """Openings in the spread order, each followed by the most probable tokens, worked out here without a cache."""
    folder = run("greedy", temperature=0, tokens=200)
    model = LlamaForCausalLM.from_pretrained(parents / "model")
    usable = [ids[:6] for ids in documents(parents / "wiki", "train") if len(ids) > 6]
    found = documents(folder, "train")
    total = 0
    for number, place in enumerate(spread_order(len(usable)).tolist()):
        if total >= 200:
            break
        ids = list(usable[place])
        for _ in range(10):
            new = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if new == 0:
                break
            ids.append(new)
        assert found[number] == [*ids, 0]
        total += len(ids) + 1
    assert len(found) == number and counts_of(folder)["train"]["tokens"] == total


def test_each_split_is_written_on_its_own_documents_and_has_its_share(run, parents):
    folder, tokenizer = run("out"), load_tokenizer(parents / "tokenizer")
    there = {split: len(Tokens(parents / "wiki", split)) for split in DOCUMENTS}
    counts = counts_of(folder)
    for split in DOCUMENTS:
        wanted = 400 * there[split] / there["train"]
        assert wanted <= counts[split]["tokens"] < wanted + 17
        openings = {tuple(ids[:6]) for ids in documents(parents / "wiki", split) if len(ids) > 6}
        found = documents(folder, split)
        begun = {tuple(ids[:6]) for ids in found}
        assert begun <= openings and len(begun) == len(found) == counts[split]["documents"]
        texts = [tokenizer.decode(ids[:-1]).rstrip("\ufffd") for ids in found]
        assert counts[split]["left_out"]["short"] == -(-DOCUMENTS[split] // 10)
        assert counts[split]["bytes"] == sum(len(text.encode()) for text in texts)


def test_the_seed_decides_the_text(run):
    first = content(run("a"))
    assert content(run("again")) == first
    assert content(run("other", seed=1)) != first


def test_killed_anywhere_ends_with_the_same_bytes(run, tmp_path, monkeypatch):
    whole = content(run("whole"))
    completions = write_corpus.completions

    def calls(name: str, kill_at: int = -1) -> int:
        counted = counting(completions, kill_at)
        monkeypatch.setattr(write_corpus, "completions", counted)
        run(name)
        return counted.calls

    total = calls("counted")
    for number, kill_at in enumerate((1, total // 2, total)):
        with pytest.raises(Killed):
            calls(f"cut-{number}", kill_at)
        assert calls(f"cut-{number}") == total - kill_at + 1  # what was kept was not written again
        assert content(tmp_path / f"cut-{number}") == whole
    monkeypatch.setattr(write_corpus, "write_shards", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        run("last")
    monkeypatch.undo()
    monkeypatch.setattr(write_corpus, "completions", None)  # not needed: all was written
    run("last")
    assert content(tmp_path / "last") == whole


def test_told_to_stop_it_goes_on_later_and_damage_is_written_again(run, tmp_path):
    whole, asked = content(run("whole")), iter([False, False, True])
    with pytest.raises(SystemExit) as stopped:
        run("cut", lambda job: setattr(job, "should_stop", lambda: next(asked)))
    assert stopped.value.code == STOPPED
    kept = sorted((tmp_path / "cut.work").glob("state-*/batch-*.json"))
    assert len(kept) == 2
    kept[0].write_text(kept[0].read_text().replace("train", "trail"))
    run("cut")
    assert content(tmp_path / "cut") == whole


def test_an_ancestor_with_another_tokenizer_writes_text_for_the_chain(run, parents):
    folder, tokenizer = run("foreign", model="foreign"), load_tokenizer(parents / "tokenizer")
    for ids in documents(folder, "train"):
        text = tokenizer.decode(ids[:-1])
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[:-1]  # as the chain reads any text
        assert text.split()[0].isdigit()
    assert counts_of(folder)["train"]["tokens"] >= 400


def test_special_tokens_and_empty_continuations_are_left_out_and_counted(parents, monkeypatch):
    """A batch of four: nothing at all, only blanks, a special token in the midst, text up to an end of text."""
    tokenizer = load_tokenizer(parents / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    special = tokenizer.convert_tokens_to_ids("<|user|>")
    blank, old, king, a, great = (encode(tokenizer, [text])[0] for text in ("  ", " old", " king", "a", "great"))
    rows = [[0], blank, [*old, special, *king], [*king, 0, *old]]
    rows = [row + [0] * (12 - len(row)) for row in rows]
    monkeypatch.setattr(write_corpus, "completions", lambda *_: torch.tensor(rows))
    model = LlamaForCausalLM.from_pretrained(parents / "model")
    openings, settings = [a, a, a, great], Written(**SETTINGS)
    for foreign in (False, True):
        writer = write_corpus.Writer(model, tokenizer, load_tokenizer(parents / "tokenizer"), foreign)
        found = write_corpus.write_on(writer, openings, settings, seed=0)
        assert found == {
            "ids": [[*a, *old, *king], [*great, *king]],
            "sizes": [len("a old king"), len("great king")],
            "empty": 2,
            "special": 1,
        }


def test_half_a_character_at_the_cut_is_no_text_for_another_tokenizer(parents, monkeypatch):
    chain, foreign = (load_tokenizer(parents / name) for name in ("tokenizer", "foreign"))
    given = []
    monkeypatch.setattr(
        write_corpus, "completions", lambda _, __, opened, *___: given.append(opened) or torch.zeros(1, 1)
    )
    [ids] = encode(chain, ["a é"])
    writer = write_corpus.Writer(LlamaForCausalLM.from_pretrained(parents / "foreign"), foreign, chain, True)
    write_corpus.write_on(writer, [ids[:-1]], Written(**SETTINGS), seed=0)
    assert given == [encode(foreign, ["a "])]


@pytest.mark.parametrize("foreign", [False, True])
def test_an_ancestor_reads_an_opening_behind_what_its_tokenizer_puts_there(parents, monkeypatch, foreign):
    """It is no part of the document that is written."""
    chain, writer = load_tokenizer(parents / "tokenizer"), make_beginning_tokenizer([" ".join(WORDS)], 290)
    given, [ids], [opened] = [], encode(chain, ["a king"]), encode(writer, ["a king"])
    [said] = encode(writer if foreign else chain, [" old"])
    monkeypatch.setattr(
        write_corpus, "completions", lambda _, __, prompts, *___: given.extend(prompts) or torch.tensor([[*said, 0]])
    )
    own = writer if foreign else chain
    if not foreign:
        chain.add_special_tokens({"bos_token": "<s>"})
        chain.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", chain.bos_token_id)]
        )
    model = LlamaForCausalLM.from_pretrained(parents / "model")
    found = write_corpus.write_on(write_corpus.Writer(model, own, chain, foreign), [ids], Written(**SETTINGS), seed=0)
    assert given == [[own.bos_token_id, *(opened if foreign else ids)]]
    assert found["ids"] == encode(chain, ["a king old"]) and chain.bos_token_id not in found["ids"][0]


def test_too_few_openings_are_refused_before_anything_is_written(run, monkeypatch):
    monkeypatch.setattr(write_corpus, "completions", None)
    message = (
        r"few: the 54 openings of wiki \(training documents of 6 tokens or more; 6 are shorter\) give at most 918 tokens, "
        r"and written.tokens asks for 1,000; lower that"
    )
    with pytest.raises(ColpipeError, match=message):
        run("few", tokens=1000)


def test_too_few_openings_are_refused_when_all_are_used(run, monkeypatch):
    ended = write_corpus.completions
    monkeypatch.setattr(write_corpus, "completions", lambda *given: ended(*given)[:, :1].clamp(min=1))
    with pytest.raises(
        ColpipeError, match=r"few: the 54 openings .* give only \d+ tokens, and written.tokens asks for 900"
    ):
        run("few", tokens=900)


def test_documents_longer_than_the_ancestor_reads_are_refused(run):
    with pytest.raises(
        ColpipeError, match="the longest opening with max_new_tokens 60 has 66 tokens, but the model has 64"
    ):
        run("long", max_new_tokens=60)


def test_openings_are_spread_over_the_documents(run, parents):
    tokenizer = load_tokenizer(parents / "tokenizer")
    folder = run("spread", tokens=150)
    numbers = sorted(int(tokenizer.decode(ids).split()[0]) for ids in documents(folder, "train"))
    assert len(numbers) >= 8 and np.diff([-1, *numbers, 60]).max() <= 16
