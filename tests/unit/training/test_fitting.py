"""A cut that a job fits: told to stop or killed at any batch, and started again."""

import errno
import fcntl
import itertools
import os
import signal

import numpy as np
import pytest
import torch

from colpipe.config.needs import JobRuntime
from colpipe.config.parts import Runtime
from colpipe.config.stages import Fit
from colpipe.hf.models import load_model
from colpipe.learngene.fit import fitted
from colpipe.learngene.linit import take_subset
from colpipe.learngene.weights import Weights
from colpipe.training.fitting import fit_to
from tests.conftest import make_gpt2, open_job, write_tokens
from tests.unit.learngene.tiny import assert_same

IDS = np.random.default_rng(1).integers(0, 50, 400).astype(np.uint16)
FIT = Fit(corpus="text", tokens=320, max_length=16)  # 20 of 25 blocks: 3 batches
ROWS = torch.from_numpy(IDS.astype(np.int64)).view(25, 16)[[i * 25 // 20 for i in range(20)]]


@pytest.fixture
def world(tmp_path):
    """A function that fits a cut of the ancestor in a job; `change` gets the job first."""
    make_gpt2(tmp_path / "ancestor", 4, 2, 16, seed=1)
    (tmp_path / "text").mkdir()
    write_tokens(tmp_path / "text", "train", IDS)

    def run(change=lambda job: None, runtime=Runtime(), settings=FIT):  # noqa: B008
        job = open_job(
            "assemble", tmp_path / "out", tmp_path / "work", settings, runtime, {"corpus": tmp_path / "text"}, 0
        )
        try:
            change(job)
            weights = Weights(tmp_path / "ancestor")
            start = take_subset(weights, {**weights.sizes, "layer": 2, "ffn": 48})
            return start, dict(fit_to(job, tmp_path / "ancestor", start, settings, "cpu").tensors()), job.state
        finally:
            job.close()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def by_hand(tmp_path, start, precision="float32") -> dict:
    batches = [ROWS[:8], ROWS[8:16], ROWS[16:]]
    return dict(fitted(load_model(tmp_path / "ancestor"), start, batches, precision=precision).tensors())


def test_a_job_fits_on_tokens_from_all_over_its_corpus(world, tmp_path):
    start, found, state = world()
    assert_same(found, by_hand(tmp_path, start))
    assert not list(state.glob("streams/*"))


@pytest.mark.parametrize("asked", [1, 3, 5, 8, 14, 23])
def test_sigterm_ends_a_fit_before_the_next_batch_and_another_attempt_is_whole(world, tmp_path, capfd, asked):
    """Each of 8 passes has 3 batches: one of the source, one that enters the cut, three for each of its two layers."""
    counted = itertools.count(1)

    def tell(job):
        ask = job.should_stop

        def should_stop() -> bool:
            if next(counted) == asked:
                os.kill(os.getpid(), signal.SIGTERM)
            return ask()

        job.should_stop = should_stop
        jobs.append(job)

    jobs: list = []
    with pytest.raises(SystemExit) as ended:
        world(tell)
    assert ended.value.code == 143 and next(counted) == asked + 1
    assert not list(jobs[0].state.glob("streams/*"))
    assert "nothing of a fit is kept: it is done anew" in capfd.readouterr().err
    start, again, _ = world()
    assert_same(again, by_hand(tmp_path, start))


def test_what_a_killed_fit_left_is_gone_before_streams_are_gathered(world, monkeypatch):
    left, seen = [], []

    def leave(job):
        (job.state / "streams/colpipe-streams-of-before").mkdir(parents=True)
        (job.state / "streams/colpipe-streams-of-before/before-0").write_bytes(b"0" * 100)
        left.append(job.state / "streams/colpipe-streams-of-before")

    def space(*_):
        seen.append(left[0].exists())

    monkeypatch.setattr("colpipe.learngene.streams.require_space", space)
    world(leave)
    assert seen == [False]


def sharing(tmp_path):
    return JobRuntime(streams=tmp_path / "shared")


def test_jobs_share_what_the_first_gathers(world, tmp_path, monkeypatch, capfd):
    start, first, _ = world(runtime=sharing(tmp_path))
    assert_same(first, by_hand(tmp_path, start))

    def load(folder):
        raise AssertionError(f"{folder} is run again")

    monkeypatch.setattr("colpipe.training.fitting.load_model", load)
    _, second, state = world(runtime=sharing(tmp_path))
    assert "another job has gathered the streams of its source" in capfd.readouterr().err
    assert_same(second, first)
    assert not list(state.glob("streams/*"))


def test_what_another_source_or_text_gave_is_not_taken(world, tmp_path):
    world(runtime=sharing(tmp_path))
    before = set((tmp_path / "shared").glob("*/whole"))
    make_gpt2(tmp_path / "ancestor", 4, 2, 16, seed=2)
    start, found, _ = world(runtime=sharing(tmp_path))
    assert len(set((tmp_path / "shared").glob("*/whole")) - before) == 1
    assert_same(found, by_hand(tmp_path, start))
    write_tokens(tmp_path / "text", "train", IDS[::-1].copy())
    world(runtime=sharing(tmp_path))
    assert len(list((tmp_path / "shared").glob("*/whole"))) == 3


def test_streams_of_another_precision_are_not_taken(world, tmp_path):
    _, precise, _ = world(runtime=sharing(tmp_path))
    start, rounded, _ = world(runtime=sharing(tmp_path), settings=FIT.model_copy(update={"precision": "bfloat16"}))
    assert len(list((tmp_path / "shared").glob("*/whole"))) == 2
    assert any(not torch.equal(rounded[name], value) for name, value in precise.items())
    assert_same(rounded, by_hand(tmp_path, start, "bfloat16"))


def test_what_a_job_that_was_killed_had_begun_to_gather_is_gathered_anew(world, tmp_path):
    world(runtime=sharing(tmp_path))
    [whole] = (tmp_path / "shared").glob("*/whole")
    whole.unlink()
    (whole.parent / "before-0").write_bytes(b"")
    start, found, _ = world(runtime=sharing(tmp_path))
    assert_same(found, by_hand(tmp_path, start))
    assert whole.exists()


def test_a_job_that_waits_for_another_one_to_gather_can_be_stopped(world, tmp_path):
    world(runtime=sharing(tmp_path))
    [lock] = (tmp_path / "shared").glob("*.lock")
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SystemExit) as ended:
            world(lambda job: os.kill(os.getpid(), signal.SIGTERM), sharing(tmp_path))
    assert ended.value.code == 143


def test_where_files_cannot_be_locked_each_job_gathers_for_itself(world, tmp_path, monkeypatch):
    world()  # jobs lock their work folders as well

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("colpipe.training.fitting.fcntl.flock", no_locks)
    start, found, _ = world(runtime=sharing(tmp_path))
    assert_same(found, by_hand(tmp_path, start))
    assert not list((tmp_path / "shared").glob("*/whole"))
