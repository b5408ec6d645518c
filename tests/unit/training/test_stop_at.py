"""A recovery ends at the first evaluation that is good enough, whatever happened on the way; its manifest says when."""

import random
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from colpipe.config.parts import Runtime
from colpipe.config.stages import Pretrain, Recover
from colpipe.hf.models import load_model
from colpipe.jobs.job import STOPPED
from colpipe.training.keep_best import take_best
from colpipe.training.resumable import reached
from colpipe.training.stop_at import find_goal, stopped, whole
from colpipe.training.trainer import train
from tests.conftest import Killed, kill, make_gpt2, open_job

ROWS = [{"input_ids": torch.arange(8) + n % 7, "labels": torch.arange(8) + n % 7} for n in range(48)]
STEP = 4 * 8  # tokens of a step: 4 rows of 8


@pytest.fixture
def recover(tmp_path):
    """A function that trains as the stage `recover` does, perhaps until it is killed or told to stop at a step."""
    make_gpt2(tmp_path / "model", 2, 2, 8, seed=3)

    def run(name: str, kill_at: int | None = None, stop_when: int | None = None, micro: int | None = None, **changes):
        defaults = {"steps": 12, "batch_size": 4, "max_length": 8, "evaluations": 6, "learning_rate": 1e-2}
        settings = Recover(corpus="x", **defaults | changes)
        runtime = Runtime(device="cpu", save_minutes=0, micro_batch=micro, progress_seconds=0)
        job = open_job("recover", tmp_path / name, tmp_path / "work" / name, settings, runtime, {}, 0)
        kill(job, after=kill_at)
        told = count(1)
        job.should_stop = lambda: next(told) == stop_when
        model, found = load_model(tmp_path / "model"), SimpleNamespace(manifest={}, status=0, killed=False)
        found.start = flat(model)
        try:
            goal = find_goal(job, ROWS[:4])
            model = train(job, model, settings, ROWS, validation=ROWS[:4], target=goal.target if goal else None)
            found.manifest = take_best(job, model, settings) | stopped(job, goal, len(ROWS))
        except SystemExit as error:
            found.status = error.code
        except Killed:
            found.killed = True
        finally:
            job.close()
        found.weights, found.log = flat(model), (job.work / "log.txt").read_text()
        found.records = {(each["split"], each["step"]): each for each in job.metrics()}
        found.losses = {step: each["loss"] for (split, step), each in found.records.items() if split == "validation"}
        found.steps = [step for split, step in found.records if split == "train"]
        return found

    return run


def flat(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def between(losses: dict[int, float], before: int, after: int) -> float:
    """A loss that is first reached at the second of two evaluations."""
    assert all(loss > losses[after] for step, loss in losses.items() if step < after)
    return (losses[before] + losses[after]) / 2


@pytest.mark.parametrize("keep", ["loss", "last"])
def test_it_ends_at_the_first_evaluation_that_is_good_enough(recover, keep):
    full = recover("full", keep=keep)
    assert sorted(full.losses) == [0, 2, 4, 6, 8, 10, 12] and full.losses[12] < full.losses[6] < full.losses[4]
    assert "stopped" not in full.manifest
    target = between(full.losses, 4, 6)
    cut = recover("cut", keep=keep, stop_at=target)
    assert cut.steps == [1, 2, 3, 4, 5, 6] and sorted(cut.losses) == [0, 2, 4, 6]
    for step in cut.steps:  # the schedule is that of the whole budget
        for name in ("loss", "learning_rate", "tokens"):
            assert cut.records["train", step][name] == full.records["train", step][name]
    there = recover("there", kill_at=6)  # killed when it had taken this step
    assert there.killed and torch.equal(cut.weights, there.weights) and not torch.equal(cut.weights, full.weights)
    assert cut.manifest["stopped"] == {
        "at": target,
        "target": target,
        "ancestor": None,
        "reached": True,
        "loss": full.losses[6],
        "tokens": 6 * STEP,
        "of": 12 * STEP,
    }
    assert f"stop_at {target:.4f}: reached with {full.losses[6]:.4f} after 192 of 384 tokens" in cut.log
    assert " at most 0:0" in cut.log and " at most " not in full.log


def test_one_that_is_good_enough_at_once_is_not_trained(recover):
    start = recover("full").losses[0]
    found = recover("none", stop_at=start)  # not above it
    assert found.steps == [] and found.losses == {0: start} and torch.equal(found.weights, found.start)
    assert (found.manifest["stopped"]["reached"], found.manifest["stopped"]["tokens"]) == (True, 0)
    assert found.manifest["kept"]["step"] == 0 and not found.status


def test_one_that_never_is_uses_its_budget_and_says_so(recover):
    full = recover("full", learning_rate=0.3)
    best = min(full.losses.values())
    target = 0.9 * best
    found = recover("never", learning_rate=0.3, stop_at=target)
    assert torch.equal(found.weights, full.weights) and found.losses == full.losses
    said = found.manifest["stopped"]
    assert (said["reached"], said["loss"], said["tokens"], said["of"]) == (False, best, 12 * STEP, 12 * STEP)
    assert f"stop_at {target:.4f}: not reached within 384 tokens; the best validation loss is {best:.4f}" in found.log


def test_a_job_that_is_killed_anywhere_ends_where_it_would_have(recover):
    target = between(recover("full").losses, 4, 6)
    alone = recover("alone", stop_at=target)
    chance = random.Random(0)
    for trial in range(3):
        for kill_at in sorted(chance.sample(range(1, 7), 2)):
            assert recover(f"cut-{trial}", kill_at, stop_at=target).killed
        again = recover(f"cut-{trial}", stop_at=target)
        assert again.manifest == alone.manifest and again.losses == alone.losses
        assert torch.equal(again.weights, alone.weights)


@pytest.mark.parametrize("keep", ["loss", "last"])
def test_a_job_that_is_killed_after_it_has_ended_learns_no_more(recover, keep):
    """Killed before it published: its last state is that of the evaluation which was good enough."""
    target = between(recover("full").losses, 4, 6)
    alone, again = (recover("cut", stop_at=target, keep=keep) for _ in range(2))
    assert "resumes at step 6" in again.log and again.steps == [1, 2, 3, 4, 5, 6]
    assert again.manifest == alone.manifest and torch.equal(again.weights, alone.weights)


def test_told_to_stop_it_goes_on_later_unless_it_is_good_enough(recover):
    target = between(recover("full").losses, 4, 6)
    alone = recover("alone", stop_at=target)
    early = recover("told", stop_when=3, stop_at=target)
    assert early.status == STOPPED and early.steps == [1, 2, 3]
    assert recover("told", stop_at=target).manifest == alone.manifest
    ended = recover("at the end", stop_when=6, stop_at=target)
    assert not ended.status and ended.manifest == alone.manifest


def test_the_micro_batch_changes_nothing(recover):
    target = between(recover("full").losses, 4, 6)
    one, other = (recover(f"micro-{micro}", micro=micro, stop_at=target).manifest["stopped"] for micro in (None, 1))
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert other | {"loss": 0} == one | {"loss": 0} and one["tokens"] == 6 * STEP


def test_the_first_of_several_that_are_good_enough_counts():
    records = [
        {"split": "validation", "step": step, "loss": loss} for step, loss in [(8, 2.0), (0, 4.0), (4, 3.0), (2, 3.5)]
    ]
    records.append({"split": "train", "step": 1, "loss": 1.0})
    assert reached(records, 3.0)["step"] == 4 and reached(records, 2.9)["step"] == 8 and reached(records, 1.9) is None


@pytest.mark.parametrize(
    "changes", [{"steps": None, "epochs": 1.5}, {"steps": None, "epochs": 2.0}, {"steps": 13}, {"steps": 3}]
)
def test_the_whole_budget_is_what_a_training_that_nothing_ends_has_seen(recover, changes):
    """48 rows in batches of 7: the last of each pass has 6."""
    changes = {"batch_size": 7, "evaluations": 1, **changes}
    found = recover("whole", stop_at=1.0001, **changes)
    assert not found.manifest["stopped"]["reached"]
    last = max(found.steps)
    assert found.records["train", last]["tokens"] == found.manifest["stopped"]["of"]
    assert whole(Recover(corpus="x", max_length=8, **changes), len(ROWS)) == found.manifest["stopped"]["tokens"]


def test_settings_without_it_are_those_of_before(recover):
    """So that results that were made before there was the key are still what is asked for."""
    assert Recover(corpus="x").model_dump() == Pretrain(corpus="x").model_dump()
    assert list(Recover(corpus="x", stop_at=0.95).model_dump())[-1] == "stop_at"
    assert Recover.model_validate(Recover(corpus="x", stop_at=0.95).model_dump(mode="json")).stop_at == 0.95
    assert [Recover(corpus="x", stop_at=at).stops_by_ancestor for at in (0.95, 1, 1.01)] == [True, True, False]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stop_at": 0.95, "evaluations": 0}, "stop_at: 0.95 is looked for at evaluations, and evaluations is 0; take some"),
        ({"stop_at": 0}, "Input should be greater than 0"),
        ({"stop_at": True}, "True is no number"),
    ],
)  # fmt: skip
def test_what_is_no_place_to_stop_is_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Recover(corpus="x", **given)
