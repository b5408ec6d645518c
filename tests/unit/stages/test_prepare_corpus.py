"""The stage that makes a corpus: one pass, shards, the same bytes after any kill."""

import fcntl
import json
import os
import random
import re
import signal
import time
from itertools import chain, count
from pathlib import Path

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from colpipe.config.needs import JobRuntime, Need
from colpipe.config.parts import Dataset
from colpipe.data import shard_writing, shards, tokenising
from colpipe.data.tokens import Blocks
from colpipe.errors import ColpipeError
from colpipe.jobs.job import STOPPED, Job
from colpipe.jobs.state import read_record
from colpipe.stages import prepare_corpus
from tests.conftest import WORDS, Killed, counting, make_tokenizer, open_job

SHARD = 400  # tokens
SETTINGS = Dataset.model_validate({"source": {"path": "."}, "reader": "text", "validation": 0.1, "test": 0.1})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(shards, "SIZE", SHARD)
    monkeypatch.setattr(shard_writing, "SIZE", SHARD)
    monkeypatch.setattr(tokenising, "BATCH", 300)
    monkeypatch.setattr(prepare_corpus.torch, "get_num_threads", lambda: 2)


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    folder, chance = tmp_path_factory.mktemp("parents"), random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=1 + int(chance.expovariate(1 / 20)))) for _ in range(300)]
    (folder / "texts").mkdir()
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "texts" / "a.jsonl").write_text("".join(lines))
    make_tokenizer(texts, 300).save_pretrained(folder / "tokenizer")
    return {"dataset": folder / "texts", "tokenizer": folder / "tokenizer"}


@pytest.fixture
def run(tmp_path, parents):
    """Run the stage; a job may be changed before it starts."""

    def start(name: str, change=lambda job: None, **runtime) -> Job:
        output, work = tmp_path / name, tmp_path / f"{name}.work"
        job = open_job("prepare_corpus", output, work, SETTINGS, JobRuntime(**runtime), parents, 0)
        try:
            change(job)
            prepare_corpus.main(job)
        finally:
            job.close()
        return job

    return start


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".npy"}


def test_shards_hold_what_a_loop_of_calls_gives(run, parents, tmp_path):
    from colpipe.data.records import read
    from colpipe.hf.tokenizers import load_tokenizer

    run("out")
    tokenizer = load_tokenizer(parents["tokenizer"])
    expected = {"train": [], "validation": [], "test": []}
    for record in read(SETTINGS, parents["dataset"]):
        ids = tokenizer(record["text"], add_special_tokens=False)["input_ids"]
        expected[record["split"]].append([*ids, tokenizer.eos_token_id])
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    for split, documents in expected.items():
        ids = list(chain.from_iterable(documents))
        counts = manifest["counts"][split]
        assert counts["documents"] == len(documents) and counts["tokens"] == len(ids)
        assert counts["shards"] == -(-len(ids) // SHARD)
        tokens = shards.Tokens(tmp_path / "out", split)
        assert tokens.read(0, len(tokens)).tolist() == ids
        ends = [
            np.load(tmp_path / f"out/{split}-{number:05d}.ends.npy") + SHARD * number
            for number in range(counts["shards"])
        ]
        assert np.concatenate(ends).tolist() == np.cumsum([len(document) for document in documents]).tolist()
    assert manifest["counts"]["train"]["shards"] > 5
    assert set(manifest["files"]) == set(content(tmp_path / "out"))


def test_the_manifest_and_the_log_count_documents_by_file_and_say_how_they_were_split(run, tmp_path):
    run("out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    splits = {split: manifest["counts"][split]["documents"] for split in ("train", "validation", "test")}
    assert manifest["by_file"] == {"a.jsonl": splits} and manifest["split_by_hash"] == 300 and manifest["ignored"] == []
    log = (tmp_path / "out.work/log.txt").read_text()
    assert "300 rows used: a.jsonl 300" in log
    counts = ", ".join(f"{split} {count}" for split, count in splits.items())
    assert f"splits: {counts}: 300 rows by hash of their group\n" in log
    with pytest.raises(SystemExit):
        run("cut", lambda job: setattr(job, "should_stop", lambda: True), save_minutes=99)
    run("cut")
    assert json.loads((tmp_path / "cut/manifest.json").read_text())["by_file"] == manifest["by_file"]


def test_the_number_of_processes_changes_nothing(run, tmp_path, monkeypatch):
    run("two")
    monkeypatch.setattr(prepare_corpus.torch, "get_num_threads", lambda: 1)
    run("one")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()


@pytest.mark.parametrize("save_minutes", [0, 99])  # after each batch, or only when a shard is full
def test_killed_anywhere_ends_with_the_same_bytes(run, tmp_path, monkeypatch, save_minutes):
    run("whole")

    def appends(name: str, kill_at: int = -1) -> int:
        """Run with `append` counted, up to a kill; how often it was called."""
        append = counting(shards.append, kill_at)
        monkeypatch.setattr(shard_writing, "append", append)
        run(name, save_minutes=save_minutes)
        return append.calls

    total, chance = appends("counted"), random.Random(0)
    assert total > 60
    for trial in range(4):
        for kill_at in (1, *chance.sample(range(2, total // 2), 2)):
            with pytest.raises(Killed):
                appends(f"cut-{trial}", kill_at)
        assert appends(f"cut-{trial}") < total  # what was kept was not done again
        assert content(tmp_path / f"cut-{trial}") == content(tmp_path / "whole")


def slowly(*arguments):
    time.sleep(0.005)
    return shards.append(*arguments)


def test_sigkill_ends_with_the_same_bytes(run, tmp_path):
    run("whole")
    for wait in (0.02, 0.05, 0.1):
        child = os.fork()
        if not child:
            shard_writing.append = slowly
            try:
                run("cut", save_minutes=0)
            finally:
                os._exit(0)
        while not list((tmp_path / "cut.work").glob("state-*/counts.json")):
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.001)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not (tmp_path / "cut/manifest.json").exists()
        with open(tmp_path / "cut.work/lock") as lock:  # its processes have it until they notice
            fcntl.flock(lock, fcntl.LOCK_EX)
    run("cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_killed_while_publishing(run, tmp_path, monkeypatch):
    run("whole")
    replace, moved = os.replace, 0

    def cut(source, target):
        nonlocal moved
        if Path(target).parent == tmp_path / "cut":
            moved += 1
            if moved == 5:
                raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(Killed):
        run("cut")
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(shard_writing, "append", None)  # not needed: all was written
    run("cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert not list((tmp_path / "cut.work").glob("state-*"))


def test_told_to_stop_saves_first(run, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        run("cut", lambda job: setattr(job, "should_stop", lambda: True), save_minutes=99)
    assert stopped.value.code == STOPPED
    [kept] = (tmp_path / "cut.work").glob("state-*/counts.json")
    counts, _ = read_record(kept)
    assert sum(count["documents"] for count in counts.values()) > 0
    run("cut")
    run("whole")
    assert "resumes after" in (tmp_path / "cut.work/log.txt").read_text()
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_damaged_shards_are_made_again(run, tmp_path):
    run("whole")
    for number, name in enumerate(("train-00000.npy", "train-00001.ends.npy", "validation-00000.npy", "counts.json")):
        calls = count()
        with pytest.raises(SystemExit):
            run(
                f"cut-{number}",
                lambda job, calls=calls: setattr(job, "should_stop", lambda: next(calls) >= 30),
                save_minutes=99,
            )
        [path] = (tmp_path / f"cut-{number}.work").glob(f"state-*/{name}")
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        run(f"cut-{number}")
        log = (tmp_path / f"cut-{number}.work/log.txt").read_text()
        assert ("is damaged: not used" in log) == (name != "counts.json") and "resumes after" not in log
        assert content(tmp_path / f"cut-{number}") == content(tmp_path / "whole")


@pytest.mark.parametrize("cut", [False, True])
def test_documents_without_text_are_left_out_and_counted(run, parents, tmp_path, monkeypatch, capfd, cut):
    read = prepare_corpus.read
    blank = {"train": [" \n", ""], "validation": ["\u3000"], "test": []}

    def with_blanks(*places):
        yield from ({"split": split, "text": text} for split, texts in blank.items() for text in texts)
        yield from read(*places)

    run("plain")
    monkeypatch.setattr(prepare_corpus, "read", with_blanks)
    if cut:
        with pytest.raises(SystemExit):
            run("out", lambda job: setattr(job, "should_stop", lambda: True))
    run("out")
    assert content(tmp_path / "out") == content(tmp_path / "plain")
    counts = json.loads((tmp_path / "out/manifest.json").read_text())["counts"]
    assert {split: count["empty"] for split, count in counts.items()} == {"train": 2, "validation": 1, "test": 0}
    assert re.search("train: .*; 2 empty documents were left out", capfd.readouterr().err)


def test_only_empty_documents_are_an_error(run, monkeypatch):
    records = [{"split": "train", "text": " "}] * 3
    monkeypatch.setattr(prepare_corpus, "read", lambda *places: iter(records))
    with pytest.raises(ColpipeError, match=r"the train split has no documents \(but 3 empty ones\)"):
        run("out")


def test_too_little_for_a_stage_is_found_before_anything_is_trained(run, tmp_path):
    why = "stages.recover.max_length 128"
    enough = [Need("train", 1000, why), Need("validation", 128, why)]
    run("enough", needs=enough)
    run("plain")
    assert (tmp_path / "enough/manifest.json").read_bytes() == (tmp_path / "plain/manifest.json").read_bytes()
    message = r"short: the validation split has [0-9,]+ tokens, but stages.recover.max_length 5000 needs 5,000; lower"
    with pytest.raises(ColpipeError, match=message):
        run("short", needs=[Need("validation", 5000, "stages.recover.max_length 5000")])
    assert not (tmp_path / "short/manifest.json").exists()


def test_a_split_without_documents_is_named(run, monkeypatch):
    read = prepare_corpus.read
    monkeypatch.setattr(
        prepare_corpus, "read", lambda *places: (each for each in read(*places) if each["split"] != "test")
    )
    with pytest.raises(ColpipeError, match="out: the test split has no documents; the data set needs more of them"):
        run("out")


def test_the_manifest_says_what_the_tokenizer_puts_before_a_text_and_the_shards_do_not_have_it(run, parents, tmp_path):
    from colpipe.hf.tokenizers import load_tokenizer

    run("plain")
    assert "begin" not in json.loads((tmp_path / "plain/manifest.json").read_text())
    tokenizer = load_tokenizer(parents["tokenizer"])
    begin, vocabulary = len(tokenizer), tokenizer.get_vocab()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    template = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", vocabulary["</s>"])])
    tokenizer.backend_tokenizer.post_processor = template
    tokenizer.save_pretrained(tmp_path / "begins")
    run("out", lambda job: job.parents.update(tokenizer=tmp_path / "begins"))
    assert json.loads((tmp_path / "out/manifest.json").read_text())["begin"] == begin
    assert content(tmp_path / "out") == content(tmp_path / "plain")
    blocks = Blocks(tmp_path / "out", "train", 64)
    assert blocks[1]["input_ids"].tolist() == [
        begin,
        *shards.Tokens(tmp_path / "plain", "train").read(63, 126).tolist(),
    ]
