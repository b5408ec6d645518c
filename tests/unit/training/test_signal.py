"""A captured signal: what the teacher says, compressed; resumed; refused for other data."""

import numpy as np
import pytest
import torch

from colpipe.config.parts import Runtime
from colpipe.config.stages import Training
from colpipe.data.mixtures import mixed
from colpipe.data.tokens import IGNORE, collate
from colpipe.errors import ColpipeError
from colpipe.jobs.job import Job
from colpipe.jobs.state import read_record
from colpipe.training import signal
from colpipe.training.objectives import TopK, chunked, reverse_kl
from colpipe.training.projection import loss_places, project
from colpipe.training.signal import WithCachedTeacher, cache_log_probabilities
from tests.conftest import make_gpt2, open_job


def item(n: int, masked: int) -> dict:
    ids = (torch.arange(4 + n % 5) * 3 + n) % 50
    return {"input_ids": ids, "labels": torch.where(torch.arange(len(ids)) < masked, IGNORE, ids)}


ITEMS = mixed([[item(n, 2) for n in range(7)], [item(n, 0) for n in range(4)]])


@pytest.fixture
def teacher(tmp_path):
    return make_gpt2(tmp_path / "teacher", 2, 2, 8, seed=2)


@pytest.fixture
def new_job(tmp_path):
    jobs = []

    def make() -> Job:
        runtime = Runtime(device="cpu", micro_batch=3)
        job = open_job("teacher_signal", tmp_path / "out", tmp_path / "work", Training(), runtime, {}, 0)
        jobs.append(job)
        return job

    yield make
    for job in jobs:
        job.close()


def test_all_but_one_token_is_all_there_is_to_say(teacher, new_job, tmp_path):
    """With V − 1 tokens kept, the bucket is the last one: half precision of the file apart, nothing is lost."""
    job = new_job()
    cache_log_probabilities(job, teacher, ITEMS, 49, 50, 0, "train")
    student = make_gpt2(tmp_path / "student", 2, 2, 8, seed=3)
    batch = collate(0)([WithCachedTeacher(ITEMS, job.staging, "train")[index] for index in range(len(ITEMS))])
    labels = batch.pop("labels")
    ids, logs = (batch.pop(name)[:, 1:][labels[:, 1:] != IGNORE] for name in ("top_ids", "top_logs"))
    places = loss_places(labels)
    with torch.no_grad():
        ours, theirs = (project(model, batch, places) for model in (student, teacher))
        assert chunked(reverse_kl, ours, TopK(ids, logs)).item() == pytest.approx(
            chunked(reverse_kl, ours, theirs).item(), rel=1e-3
        )
        torch.testing.assert_close(
            logs, theirs.cropped(50).log_probabilities(slice(None)).gather(1, ids), rtol=0, atol=5e-3
        )


def test_it_is_as_small_as_it_says(teacher, new_job, capsys):
    job = new_job()
    cache_log_probabilities(job, teacher, ITEMS, 8, 50, 0, "train")
    tokens = sum(int((each["labels"][1:] != IGNORE).sum()) for each in ITEMS)
    assert f"{tokens} tokens × 8 take 0.0 MB" in capsys.readouterr().err
    assert np.load(job.staging / "train-ids.npy").nbytes + np.load(job.staging / "train-logs.npy").nbytes == tokens * 32


def test_a_job_that_is_told_to_stop_goes_on_where_it_was(teacher, new_job, monkeypatch):
    job = new_job()
    cache_log_probabilities(job, teacher, ITEMS, 8, 50, 0, "train")
    whole = {name: np.load(job.staging / f"train-{name}.npy") for name in ("ids", "logs", "starts")}
    job.close()
    job = new_job()
    (job.state / "train-done.json").unlink()
    batches = []

    def batch_seen(teacher, *arguments):
        batches.append(arguments)
        job.should_stop = lambda: len(batches) == 2
        return most_probable(teacher, *arguments)

    most_probable = signal._most_probable
    monkeypatch.setattr(signal, "_most_probable", batch_seen)
    with pytest.raises(SystemExit) as stopped:
        cache_log_probabilities(job, teacher, ITEMS, 8, 50, 0, "train")
    assert stopped.value.code == 143 and read_record(job.state / "train-done.json")[0] == 6
    monkeypatch.undo()
    job.should_stop = lambda: False
    cache_log_probabilities(job, teacher, ITEMS, 8, 50, 0, "train")
    for name, values in whole.items():
        assert np.array_equal(values, np.load(job.staging / f"train-{name}.npy"))


def test_what_is_damaged_is_made_again(teacher, new_job, capsys):
    job = new_job()
    cache_log_probabilities(job, teacher, ITEMS, 8, 50, 0, "train")
    whole = {path.name: path.read_bytes() for path in job.staging.glob("*.npy")}
    for array in signal.ARRAYS:
        for name in signal.ARRAYS:
            content = bytearray(whole[f"train-{name}.npy"])
            content[-1] ^= array == name
            (job.state / f"train-{name}.npy").write_bytes(content)
        cache_log_probabilities(job, teacher, ITEMS, 8, 50, 0, "train")
        assert "train: what was written before is damaged: not used" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in job.staging.glob("*.npy")} == whole


def test_other_data_are_refused(teacher, new_job):
    job = new_job()
    cache_log_probabilities(job, teacher, ITEMS, 8, 50, 0, "train")
    with pytest.raises(
        ColpipeError, match=r"has log-probabilities of 11 items, .*the data here are others \(1 items\)"
    ):
        WithCachedTeacher([item(0, 2)], job.staging, "train")
