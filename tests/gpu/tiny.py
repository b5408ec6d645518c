"""Models, rows and trainings that are small enough for seconds, and real."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from colpipe.config.parts import Architecture, Runtime, Shape
from colpipe.config.stages import Distill, Elastic, Recover, Training
from colpipe.data.tokens import IGNORE
from colpipe.hf.models import random_model
from colpipe.jobs.job import Job, JobSpec
from colpipe.training.distillation import DistillationData, distill
from colpipe.training.trainer import train

VOCABULARY, POSITIONS, END = 301, 64, 0
GPT2, LLAMA = Architecture(vocabulary=VOCABULARY, positions=POSITIONS), Architecture(
    family="llama", vocabulary=VOCABULARY, positions=POSITIONS
)  # fmt: skip
SMALL, LARGE = {"layers": 2, "heads": 2, "hidden": 32}, {"layers": 3, "heads": 4, "hidden": 64}
STEPS = 12


class World(NamedTuple):
    """What a check works with."""

    device: torch.device
    folder: Path
    """of its own, empty"""
    seconds: Callable[[], float]
    """that are left"""

    @property
    def has_accelerator(self) -> bool:
        return self.device.type != "cpu"


def model(shape: dict, seed: int, architecture: Architecture = GPT2, surer: float = 1.0, spread: float = 0.1):
    """A model in float32 whose every tensor is random, gains around 1, all others around 0; its logits `surer` times as
    large."""
    made = random_model(architecture.configure(Shape(**shape), END), seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            gain = name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
            parameter.copy_(torch.randn_like(parameter) * spread + gain)
        made.get_output_embeddings().weight *= surer
    return made.eval()


def row(n: int) -> dict:
    ids = (torch.arange(20 + 5 * (n % 5)) * 13 + 29 * n) % (VOCABULARY - 1) + 1
    return {"input_ids": ids, "labels": torch.where(torch.arange(len(ids)) < 6, IGNORE, ids)}


ROWS = [row(n) for n in range(96)]
PROMPTS = [row(n)["input_ids"][: 4 + n % 5] for n in range(32)]
BLOCKS = [
    {"input_ids": ids, "labels": ids.clone()}
    for n in range(96)
    for ids in [(torch.arange(32) * 7 + 11 * n) % VOCABULARY]
]
MATERIAL = DistillationData(items=ROWS, prompts=PROMPTS, text=BLOCKS, validation=ROWS[:8], end_ids=[END], pad_id=END)
TRAINING: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 8,
    "max_length": 48,
    "learning_rate": 1e-3,
    "warmup": 1,
    "evaluations": 2,
}
DISTILLING = {**TRAINING, "data": ["x"], "rollout": {"size": 16, "epochs": 2, "batch_size": 8}}


def open_job(folder: Path, stage: str, settings: Training, device: torch.device, **runtime) -> Job:
    """A job at work, to be closed; its work folder lies in it, so that it goes on when it is opened again."""
    place = Runtime(device=device.type, **{"save_minutes": 1000, "progress_seconds": 1000, **runtime})
    return Job(JobSpec(stage, folder / "out", folder / "work", settings, place, {}, 0))


class Trained(NamedTuple):
    """How a training went."""

    losses: dict[tuple[str, int], float]
    """(split, step) → nats"""
    weights: torch.Tensor
    """all of them, on the CPU in float64"""


def ended(job: Job, trained) -> Trained:
    known = [record for record in job.metrics() if record.get("split") in ("train", "validation")]
    losses = {(record["split"], record["step"]): record["loss"] for record in known}
    weights = torch.cat([parameter.detach().cpu().double().flatten() for parameter in trained.parameters()])
    return Trained(losses, weights)


def distilled(
    folder: Path, objective: str, device: torch.device, dtype: torch.dtype = torch.float32, runtime: dict | None = None,
    **changes
) -> Trained:  # fmt: skip
    """A small student from a surer teacher; `+elastic` after the objective: with submodels."""
    settings = Distill(objective=objective.removesuffix("+elastic"), **{**DISTILLING, **changes})
    student, teacher = model(SMALL, 1).to(dtype), model(LARGE, 2, surer=2.0).to(dtype)
    if settings.precision == "bfloat16":
        teacher = teacher.bfloat16()
    with open_job(folder, "distill", settings, device, **(runtime or {})) as job:
        submodels = elastic_in(student) if objective.endswith("+elastic") else None
        student, _ = distill(job, student, teacher, settings, MATERIAL, submodels=submodels)
        return ended(job, student)


def elastic_in(student):
    """Two submodels at every step, down to half of the student."""
    from colpipe.learngene.elastic import ElasticMember  # needs einops
    from colpipe.training.elastic import Submodels

    smallest = GPT2.sizes(Shape(layers=1, heads=1, hidden=16))
    return Submodels(student, ElasticMember(smallest, [0], 1.0), Elastic(), seed=0)


def pretrained(
    folder: Path, device: torch.device, dtype: torch.dtype = torch.float32, target: float | None = None, **changes
) -> Trained:
    """A small model on blocks, to its last step or, as a recovery may, to a target."""
    settings = Recover(**{**TRAINING, **changes})
    with open_job(folder, "recover", settings, device) as job:
        begun = model(SMALL, 3).to(dtype)
        return ended(job, train(job, begun, settings, BLOCKS, validation=BLOCKS[:8], target=target))


def difference(one: Trained, other: Trained) -> dict[str, float]:
    """How far apart: losses, the largest of the relative differences, and weights, that of all of them together."""
    if one.losses.keys() != other.losses.keys():
        return {"losses": math.inf, "weights": math.inf}
    apart = max(abs(one.losses[key] - value) / abs(value) for key, value in other.losses.items())
    return {"losses": apart, "weights": relative(one.weights, other.weights)}


def relative(value: torch.Tensor, reference: torch.Tensor) -> float:
    """‖value − reference‖ / ‖reference‖, in float64 on the CPU."""
    value, reference = value.detach().cpu().double(), reference.detach().cpu().double()
    return ((value - reference).norm() / reference.norm().clamp_min(1e-30)).item()
