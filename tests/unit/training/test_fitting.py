"""A cut that a job fits: told to stop or killed at any batch, and started again."""

import itertools
import os
import signal

import numpy as np
import pytest
import torch

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

    def run(change=lambda job: None):
        job = open_job(
            "assemble", tmp_path / "out", tmp_path / "work", FIT, Runtime(), {"corpus": tmp_path / "text"}, 0
        )
        try:
            change(job)
            weights = Weights(tmp_path / "ancestor")
            start = take_subset(weights, {**weights.sizes, "layer": 2, "ffn": 48})
            return start, dict(fit_to(job, tmp_path / "ancestor", start, FIT, "cpu").tensors()), job.state
        finally:
            job.close()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def by_hand(tmp_path, start) -> dict:
    return dict(fitted(load_model(tmp_path / "ancestor"), start, [ROWS[:8], ROWS[8:16], ROWS[16:]]).tensors())


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
