"""The stage that mixes corpora: whole documents, shares of tokens, the same bytes after any kill."""

import json
import random

import numpy as np
import pytest

from colpipe.config.needs import JobRuntime, Need
from colpipe.data import shard_writing, shards
from colpipe.data.shards import NOTHING, Tokens, append, documents_in
from colpipe.data.tokenising import piece_maker
from colpipe.errors import ColpipeError
from colpipe.stages import mix_corpus
from tests.conftest import WORDS, Killed, counting, make_tokenizer, open_job

SHARD = 400  # tokens
SPLITS = {"train": 1.0, "validation": 0.3, "test": 0.3}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(shards, "SIZE", SHARD)
    monkeypatch.setattr(shard_writing, "SIZE", SHARD)
    monkeypatch.setattr(mix_corpus, "BATCH", 300)


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    """Documents of two corpora that can be told apart; those of `wiki` have bytes of several kinds."""
    chance = random.Random(0)

    def some(count: int, mean: int, begin: str) -> list[str]:
        return [
            f"{begin}{number} " + " ".join(chance.choices(WORDS, k=1 + int(chance.expovariate(1 / mean))))
            for number in range(count)
        ]

    return {"wiki": some(200, 25, "é"), "own": some(90, 10, "o")}


@pytest.fixture
def run(tmp_path, texts, monkeypatch):
    """Run the stage on both; gives the folder of the mixture."""
    make_tokenizer([*texts["wiki"], *texts["own"]], 300).save_pretrained(tmp_path / "tokenizer")
    from colpipe.hf.tokenizers import load_tokenizer

    piece_of = piece_maker(load_tokenizer(tmp_path / "tokenizer"))
    monkeypatch.setattr(shards, "SIZE", SHARD)
    for name, documents in texts.items():
        (tmp_path / name).mkdir()
        for split, share in SPLITS.items():
            append(tmp_path / name, split, NOTHING, piece_of(documents[: round(share * len(documents))]))

    def start(name: str, shares: dict[str, float], **runtime):
        parents = {"data.wiki": tmp_path / "wiki", "data.own": tmp_path / "own", "tokenizer": tmp_path / "tokenizer"}
        settings = mix_corpus.Settings(shares=shares)
        work = tmp_path / f"{name}.work"
        job = open_job("mix_corpus", tmp_path / name, work, settings, JobRuntime(**runtime), parents, 0)
        try:
            mix_corpus.main(job)
        finally:
            job.close()
        return tmp_path / name

    return start


def documents(folder, split: str, tokenizer) -> list[str]:
    tokens, ends = Tokens(folder, split), documents_in(folder, split)[0].tolist()
    return [tokenizer.decode(tokens.read(a, b - 1)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".npy"}


def test_shares_of_tokens_whole_documents_none_twice(run, texts, tmp_path):
    from colpipe.hf.tokenizers import load_tokenizer

    folder, tokenizer = run("both", {"wiki": 0.75, "own": 0.25}), load_tokenizer(tmp_path / "tokenizer")
    manifest = json.loads((folder / "manifest.json").read_text())
    for split, share in SPLITS.items():
        there = {name: each[: round(share * len(each))] for name, each in texts.items()}
        found = documents(folder, split, tokenizer)
        tokens = {name: 0 for name in texts}
        for name, known in there.items():
            taken = [text for text in found if text in known]
            assert taken == [text for text in known if text in taken]  # in their order, none twice
            tokens[name] = sum(len(tokenizer(text)["input_ids"]) + 1 for text in taken)
            assert manifest["parts"][split][name] == {
                "documents": len(taken),
                "tokens": tokens[name],
                "left_out_documents": len(known) - len(taken),
                "left_out_tokens": len(Tokens(tmp_path / name, split)) - tokens[name],
            }
        assert len(found) == sum(part["documents"] for part in manifest["parts"][split].values())
        longest = max(len(tokenizer(text)["input_ids"]) + 1 for text in (*there["wiki"], *there["own"]))
        assert abs(tokens["wiki"] - 3 * tokens["own"]) <= 2 * longest
        assert manifest["parts"][split]["own"]["left_out_documents"] == 0  # the scarcer one: there is no more
        counts = manifest["counts"][split]
        assert counts["documents"] == len(found) and counts["tokens"] == sum(tokens.values())
        assert counts["bytes"] == sum(len(text.encode()) for text in found)
        assert counts["shards"] == -(-counts["tokens"] // SHARD) and counts["special"] == 0
        assert documents_in(folder, split)[1].tolist() == [len(text.encode()) for text in found]
    assert manifest["counts"]["train"]["shards"] > 5
    log = (tmp_path / "both.work/log.txt").read_text()
    train = manifest["parts"]["train"]
    total = train["wiki"]["tokens"] + train["own"]["tokens"]
    assert (
        f"train: own {train['own']['tokens']:,} tokens ({train['own']['tokens'] / total:.1%}), "
        f"wiki {train['wiki']['tokens']:,} tokens ({train['wiki']['tokens'] / total:.1%}), "
        f"{train['wiki']['left_out_documents']:,} documents with {train['wiki']['left_out_tokens']:,} tokens left out"
    ) in log


def test_the_parts_are_interleaved(run, tmp_path):
    from colpipe.hf.tokenizers import load_tokenizer

    found = documents(run("both", {"wiki": 0.6, "own": 0.4}), "train", load_tokenizer(tmp_path / "tokenizer"))
    sizes = np.cumsum([len(text) for text in found])
    for quarter in range(4):
        inside = [
            text
            for text, end in zip(found, sizes, strict=True)
            if quarter * sizes[-1] / 4 < end <= (quarter + 1) * sizes[-1] / 4
        ]
        own = sum(len(text) for text in inside if text.startswith("o")) / sum(map(len, inside))
        assert 0.3 < own < 0.5


def test_killed_anywhere_ends_with_the_same_bytes(run, tmp_path, monkeypatch):
    shares = {"wiki": 0.75, "own": 0.25}
    whole = run("whole", shares)

    def appends(name: str, kill_at: int = -1) -> int:
        append = counting(shards.append, kill_at)
        monkeypatch.setattr(shard_writing, "append", append)
        run(name, shares, save_minutes=0)
        return append.calls

    total = appends("counted")
    assert total > 10
    for number, kill_at in enumerate((2, total // 2, total - 1)):
        with pytest.raises(Killed):
            appends(f"cut-{number}", kill_at)
        assert appends(f"cut-{number}") == total - kill_at + 1  # what was kept was not done again
        assert content(tmp_path / f"cut-{number}") == content(whole)
        assert (tmp_path / f"cut-{number}/manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()


def test_a_part_that_gives_no_document_is_named(run):
    with pytest.raises(ColpipeError, match="out: the train split has no document of wiki: its share is less than half"):
        run("out", {"wiki": 0.0005, "own": 0.9995})


def test_too_little_for_a_stage_is_found_before_anything_is_trained(run):
    with pytest.raises(
        ColpipeError, match=r"short: the train split has [0-9,]+ tokens, but budgets needs 90,000; lower"
    ):
        run("short", {"wiki": 0.5, "own": 0.5}, needs=[Need("train", 90_000, "budgets")])
