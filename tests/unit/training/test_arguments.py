"""Warm-up is a share of the steps or their number, and never longer than they are."""

import pytest
import torch
from transformers import TrainingArguments

from colpipe.config.parts import Runtime
from colpipe.config.stages import Distill, Training
from colpipe.errors import ColpipeError
from colpipe.hf.models import load_model
from colpipe.training import arguments
from colpipe.training.arguments import training_arguments, warmup_steps
from colpipe.training.trainer import train
from tests.conftest import make_gpt2, open_job
from tests.unit.training.test_keep_best import ROWS


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"),
    [(Distill(data=["x"]).warmup, 5000, 100), (0.02, 6, 0), (0.02, 60, 1), (0.0, 9, 0), (1, 9, 1), (40, 40, 40)],
)
def test_steps_of_warmup(warmup, steps, expected):
    """The default is the paper's 100 of 5000."""
    assert warmup_steps(warmup, steps) == expected


def rates(tmp_path, **settings) -> list[float]:
    make_gpt2(tmp_path / "model", 2, 2, 8, seed=3)
    settings = Training(batch_size=4, max_length=8, learning_rate=1e-3, schedule="constant", **settings)
    job = open_job("pretrain", tmp_path / "out", tmp_path / "work", settings, Runtime(device="cpu"), {}, 0)
    try:
        train(job, load_model(tmp_path / "model"), settings, ROWS)
        return [record["learning_rate"] * 1e3 for record in job.metrics()]
    finally:
        job.close()


@pytest.mark.parametrize(
    "settings", [{"steps": 8, "warmup": 0.5}, {"steps": 8, "warmup": 4}, {"epochs": 2 / 3, "warmup": 0.5}]
)
def test_the_learning_rate_rises_over_the_share(tmp_path, settings):
    assert rates(tmp_path, **settings) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_a_warmup_longer_than_the_steps_of_the_data_is_refused(tmp_path):
    with pytest.raises(ColpipeError, match=r"^warmup: 20 steps are more than the 12 of this training; use a share"):
        rates(tmp_path, epochs=1, warmup=20)


def test_batches_travel_to_an_accelerator_while_it_computes(tmp_path, monkeypatch):
    settings = Training(batch_size=4, steps=1)
    job = open_job("pretrain", tmp_path / "out", tmp_path / "work", settings, Runtime(device="cpu"), {}, 0)
    try:
        assert "accelerator_config" not in training_arguments(job, settings)
        monkeypatch.setattr(arguments, "pick_device", lambda wanted: torch.device("cuda", 0))
        found = training_arguments(job, settings)
        assert not found["use_cpu"] and found["accelerator_config"] == {"non_blocking": True}
        # As transformers reads it, memory is pinned, and AdamW is fused where torch has it.
        made = TrainingArguments(**{**found, "use_cpu": True})
        assert made.accelerator_config.non_blocking and TrainingArguments.dataloader_pin_memory
        assert made.optim == "adamw_torch_fused"
    finally:
        job.close()
