"""The published state is the best that was evaluated, the start included, whatever happened on the way."""

import random

import pytest
import torch

from colpipe.config.parts import Runtime
from colpipe.config.stages import Pretrain
from colpipe.hf.models import load_model
from colpipe.training.keep_best import take_best
from colpipe.training.trainer import train
from tests.conftest import Killed, kill, make_gpt2, open_job

ROWS = [{"input_ids": torch.arange(8) + n % 7, "labels": torch.arange(8) + n % 7} for n in range(48)]
OTHERS = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 50, (4, 8), generator=torch.manual_seed(5))]


@pytest.fixture
def recover(tmp_path):
    """A function that trains as `recover` does, perhaps until it is killed, and gives weights, start, manifest, log."""
    make_gpt2(tmp_path / "model", 2, 2, 8, seed=3)

    def run(name: str, kill_at: int | None = None, validation=OTHERS, **changes):
        settings = Pretrain(corpus="x", **{"steps": 12, "batch_size": 4, "max_length": 8, **changes})
        runtime = Runtime(device="cpu", save_minutes=0)
        job = open_job("recover", tmp_path / name, tmp_path / "work" / name, settings, runtime, {}, 0)
        kill(job, after=kill_at)
        model = load_model(tmp_path / "model")
        start = flat(model)
        try:
            model = train(job, model, settings, ROWS, validation=validation)
            kept = take_best(job, model, settings)["kept"]
        finally:
            job.close()
        losses = {each["step"]: each["loss"] for each in job.metrics() if each["split"] == "validation"}
        return flat(model), start, kept, losses, (job.work / "log.txt").read_text()

    return run


def flat(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def test_a_recovery_that_only_does_harm_publishes_what_it_started_from(recover):
    weights, start, kept, losses, log = recover("harm", learning_rate=0.3)
    assert sorted(losses) == [0, 3, 6, 9, 12] and min(losses.values()) == losses[0]  # evaluated by default
    assert torch.equal(weights, start)
    assert kept == {"by": "loss", "step": 0, "loss": losses[0], "as_good": []}
    assert f"keeps step 0, the start, the best by loss of 5 evaluations: loss {losses[0]:.4f}" in log


def test_one_that_helps_publishes_what_it_came_to(recover):
    weights, start, kept, losses, _ = recover("helps", validation=ROWS[:4], learning_rate=1e-2)
    last = recover("last", validation=ROWS[:4], learning_rate=1e-2, keep="last")[0]
    assert kept["step"] == 12 and kept["loss"] == losses[12] < losses[0]
    assert torch.equal(weights, last) and not torch.equal(weights, start)


def test_the_last_state_where_that_is_asked_for_or_nothing_is_evaluated(recover):
    weights, start, kept, _, _ = recover("last", learning_rate=0.3, keep="last")
    assert kept == {"by": "last"} and not torch.equal(weights, start)
    again, _, kept, losses, _ = recover("none", learning_rate=0.3, evaluations=0)
    assert kept == {"by": "last"} and not losses and torch.equal(again, weights)


@pytest.mark.parametrize("rate", [0.3, 2e-3])  # the start is the best; a state in the middle or at the end is
def test_a_job_that_is_killed_anywhere_keeps_the_same(recover, rate):
    whole, _, kept, losses, _ = recover("whole", learning_rate=rate, evaluations=6)
    chance = random.Random(rate)
    for trial in range(2):
        for kill_at in sorted(chance.sample(range(1, 12), 2)):
            with pytest.raises(Killed):
                recover(f"cut-{trial}", kill_at, learning_rate=rate, evaluations=6)
        again, _, kept_again, losses_again, _ = recover(f"cut-{trial}", learning_rate=rate, evaluations=6)
        assert torch.equal(again, whole) and (kept_again, losses_again) == (kept, losses)


def test_a_model_worse_than_a_uniform_guess_is_said_to_be_broken(recover):
    *_, log = recover("broken", learning_rate=0.3, keep="last")
    assert ": the model is broken, worse than guessing: a uniform guess has 3.91 (ln 50)" in log
    *_, log = recover("fine", validation=ROWS[:4], learning_rate=1e-2)
    assert "broken" not in log


def test_a_model_that_training_made_worse_is_said_to_be_worse_than_its_start(recover):
    *_, losses, log = recover("worse", learning_rate=0.05, keep="last")
    assert losses[12] > losses[0]
    said = f"worse than at its start: {losses[0]:.4f} nats a token of the validation text then, {losses[12]:.4f} now"
    assert f"{said}; try a lower learning_rate than 0.05, or more steps" in log
    fine = {"keeps the start": {"learning_rate": 0.3}, "helps": {"validation": ROWS[:4], "learning_rate": 1e-2}}
    for name, settings in fine.items():
        assert "worse than at its start" not in recover(name, **settings)[-1]
