"""Distillation of one student from one teacher: on the data's tokens, on the teacher's answers, or on sampled ones.

Sampled answers (rollouts) are made when the updates before them are done, are part of the in-step state, and are used for a
few passes. Sizes are global: they do not depend on the number of processes.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler, TensorDataset
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from colpipe.checkpoint import require_space
from colpipe.data.tokens import IGNORE, collate
from colpipe.device import float64
from colpipe.errors import ColpipeError
from colpipe.job import Job
from colpipe.stage_settings import Distill
from colpipe.states import discard, is_sound, seal
from colpipe.training.elastic import Parts
from colpipe.training.models import disable_dropout
from colpipe.training.objectives import (
    Objective,
    chunked,
    cross_entropy,
    forward_kl,
    jensen_shannon,
    policy_gradient,
    reverse_kl,
    weighted,
)
from colpipe.training.rollouts import advantages, chosen_prompts, sample, shuffled
from colpipe.training.sharding import full_state, whole
from colpipe.training.trainer import ObjectiveTrainer, agreed, run_resumable, training_arguments

SAMPLED = ("minillm", "on_policy")  # objectives on answers that are sampled while the student learns
ROLLOUTS = "rollouts.pt"  # in the in-step state


class Material(NamedTuple):
    """What a student learns from."""

    data: Dataset | None
    """items with input_ids and labels; None where answers are sampled"""
    prompts: Sequence[Tensor]
    """token ids of the prompts that are answered, where they are"""
    text: Dataset | None
    """blocks for the cross-entropy beside sampled answers, or None"""
    validation: Dataset
    """scored at `settings.evaluations` steps"""
    end: int
    """id of the end-of-text token"""
    pad: int
    """id of the padding token"""


def distill(
    job: Job,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    settings: Distill,
    material: Material,
    answer_score: Callable[[PreTrainedModel], float] | None = None,
    parts: Parts | None = None,
) -> tuple[PreTrainedModel, dict]:
    """Train a student; resume if this job was cut off before.

    Args:
        student: trained in place.
        teacher: frozen, of the same vocabulary; None where the data hold its signal.
        answer_score: Rouge-L of a model's answers to validation prompts, or None.
        parts: smaller shapes inside the student that learn with it.

    Returns:
        The student as `settings.keep` says, and what the manifest records of the choice.

    Raises:
        ColpipeError: the loss is not finite, the device is missing, or the disk has no room for the state.
    """
    disable_dropout(student)
    arguments = {
        "model": student,
        "args": TrainingArguments(**training_arguments(job, settings)),
        "teacher": teacher,
        "taught": settings.objective != "seqkd",
        "objective": objective(settings),
        "parts": parts,
        "part_objective": objective(settings, part=True),
        "answer_score": answer_score,
        "eval_dataset": material.validation,
        "collate_rows": collate(material.pad),
    }
    if settings.objective in SAMPLED:
        trainer = RolloutTrainer(job, settings, material, **arguments)
    else:
        trainer = ObjectiveTrainer(train_dataset=material.data, **arguments)
    keep = _KeepBest(job, trainer, settings.keep) if settings.evaluations and settings.keep != "last" else None
    student = run_resumable(job, trainer, settings, callback=keep)
    return student, _take_best(job, student, settings)


def objective(settings: Distill, part: bool = False) -> Callable[[Tensor, dict], Objective]:
    """What makes the objective of a batch, from its labels and its other columns.

    Args:
        part: for a part of an elastic member. It has no policy of its own that was sampled from: `minillm` leaves it the
            exact divergence.
    """
    match settings.objective:
        case "reverse_kl" | "on_policy":
            return lambda labels, columns: reverse_kl
        case "minillm" if part:
            return lambda labels, columns: reverse_kl
        case "forward_kl":
            return lambda labels, columns: weighted((0.5, cross_entropy(labels)), (0.5, forward_kl))
        case "jsd":
            return lambda labels, columns: jensen_shannon
        case "seqkd":
            return lambda labels, columns: cross_entropy(labels)
    clip = settings.rollout.clip

    def minillm(labels: Tensor, columns: dict) -> Objective:
        policy = policy_gradient(labels, columns["advantages"], columns["sampled"], clip)
        return weighted((1.0, policy), (1.0, reverse_kl))

    return minillm


def sample_all(
    job: Job,
    models: Mapping[str, PreTrainedModel],
    shares: Mapping[str, float],
    prompts: Sequence[Tensor],
    settings: Distill,
    end: int,
    seed: int,
    folder: Path,
) -> list[dict[str, Tensor]]:
    """Answers to all prompts (see `sample`), in their order; prompts of similar length are answered together.

    The batches are shared out among the processes, and kept in a folder: a job that was cut off goes on with the next one.
    """
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    size = settings.rollout.batch_size
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    many = torch.distributed.is_initialized()
    process, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if many else (0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, dict[str, Tensor]] = {}
    for number, batch in list(enumerate(batches))[process::processes]:
        path = folder / f"{number:06d}.pt"
        if not is_sound(path):
            if job.should_stop():
                job.stop()
            chosen = [prompts[index] for index in batch]
            limits = [settings.max_length - len(prompt) for prompt in chosen]
            _save(sample(models, shares, chosen, limits, end, seed * 1_000_003 + number), path)
        found.update(zip(batch, torch.load(path), strict=True))
    if processes > 1:
        shared = [None] * processes
        torch.distributed.all_gather_object(shared, found)
        found = {index: row for part in shared for index, row in part.items()}
    return [found[index] for index in range(len(prompts))]


def answered(row: Mapping[str, Tensor], **columns: Tensor) -> dict[str, Tensor]:
    """A sampled row as an item to train on; `columns` (T,) belong to the answer's tokens."""
    before = len(row["prompt"])
    item = {
        "input_ids": torch.cat([row["prompt"], row["answer"]]),
        "labels": torch.cat([torch.full((before,), IGNORE), row["answer"]]),
    }
    return item | {name: torch.cat([torch.zeros(before), value]) for name, value in columns.items()}


class RolloutTrainer(ObjectiveTrainer):
    """Updates on sampled answers: `rollout.size` prompts are answered, then passed over `rollout.epochs` times.

    The training data that transformers' loop sees are numbers only: the place of each row in the sequence of all rows.
    What stands there is looked up when the update begins, so that answers come from the student as it is then.
    """

    def __init__(self, job: Job, settings: Distill, material: Material, **arguments):
        self.job, self.settings = job, settings
        self.prompts, self.text, self.end = material.prompts, material.text, material.end
        self.passes = settings.rollout.epochs or (4 if settings.objective == "minillm" else 1)
        self.rollouts: dict = {"number": None, "rows": []}
        rounds = -(-settings.epochs * len(self.prompts) // settings.rollout.size)
        rows = (
            (settings.steps * settings.batch_size) if settings.steps else rounds * settings.rollout.size * self.passes
        )
        super().__init__(train_dataset=TensorDataset(torch.arange(int(rows))), **arguments)
        self.data_collator = lambda places: {"place": torch.stack([place for (place,) in places])}

    def _get_train_sampler(self, train_dataset=None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """(micro-batches of this process, tokens with loss in the whole update)."""
        places, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not places:
            return [], None
        update, size = int(places[0]["place"][0]) // self.settings.batch_size, self.settings.batch_size
        rows = {place: self._row(place) for place in range(update * size, (update + 1) * size)}
        batches = []
        for batch in places:
            own = batch["place"].tolist()
            batches.append(self.collate_rows([rows[place] for place in own]))
            if self.text is not None:
                batches[-1]["text"] = torch.stack([self._block(place) for place in own])
        tokens = sum(int((row["labels"] != IGNORE).sum()) for row in rows.values())
        self.batches = batches
        return batches, torch.tensor(tokens, device=device)

    def _row(self, place: int) -> dict[str, Tensor]:
        size = self.settings.rollout.size
        number, turn, place = place // (size * self.passes), place // size, place % size
        if self.rollouts["number"] != number:
            self.rollouts = {"number": number, "rows": self._answer(number)}
        return self.rollouts["rows"][shuffled(size, turn, self.job.seed)[place]]

    def _block(self, place: int) -> Tensor:
        turn, place = divmod(place, len(self.text))
        return self.text[shuffled(len(self.text), turn, self.job.seed)[place]]["input_ids"]

    def _answer(self, number: int) -> list[dict[str, Tensor]]:
        """Sample rollout `number` from the student as it is now."""
        settings, student = self.settings, self.accelerator.unwrap_model(self.model)
        student.eval()
        mix = settings.rollout.teacher_mix if settings.objective == "minillm" else 0.0
        chosen = chosen_prompts(len(self.prompts), number, settings.rollout.size, self.job.seed)
        home = self.job.state / "rollouts"
        with whole(student), self.accelerator.autocast():
            folder = home / f"{number:06d}-{_weights_key(student)}"
            for other in home.glob("*"):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
            rows = sample_all(
                self.job,
                {"student": student, "teacher": self.teacher},
                {"student": 1 - mix, "teacher": mix},
                [self.prompts[index] for index in chosen],
                settings,
                self.end,
                self.job.seed * 1_000_003 + number,
                folder,
            )
        tokens = sum(len(row["answer"]) for row in rows)
        measured = {"answer_tokens": tokens / len(rows)}
        if settings.objective == "on_policy":
            items = [answered(row) for row in rows]
        else:
            gained = sum((row["teacher"] - row["student"]).sum().item() for row in rows)
            measured["log_ratio"] = gained / tokens  # of teacher to student, in nats a token
            weights = advantages(rows, settings.rollout)
            items = [
                answered(row, advantages=weight, sampled=row["sampled"])
                for row, weight in zip(rows, weights, strict=True)
            ]
        self.job.measure(step=self.state.global_step, split="rollout", **measured)
        return items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.text_rows = inputs.pop("text", None)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def loss_of(self, student, rows, objective, tokens):
        loss, text = super().loss_of(student, rows, objective, tokens), self.text_rows
        if text is not None:
            predicts = torch.ones_like(text[:, 1:], dtype=torch.bool)
            total = chunked(cross_entropy(text[:, 1:].flatten()), student({"input_ids": text}, predicts), None)
            share = self.settings.batch_size * (text.shape[1] - 1) / self.accelerator.num_processes
            loss = loss + self.settings.rollout.text_weight * total / share
        return loss

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            torch.save(self.rollouts, Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / ROLLOUTS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.rollouts = torch.load(Path(resume_from_checkpoint) / ROLLOUTS)


def _weights_key(model: PreTrainedModel) -> str:
    """Names the weights of a model by their sums: cheap, and different after any update."""
    sums = [float64(parameter.detach()).sum().item() for parameter in model.parameters()]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def _save(value: object, path: Path) -> None:
    """Write a file and its seal."""
    torch.save(value, path)
    seal(path)


def best(records: Sequence[Mapping], keep: str) -> tuple[dict, str, list[int]]:
    """The best of the validation records after the start.

    Returns:
        The record; what it was chosen by (`loss` where answers were not scored); the steps that are as good by that. Among
        these the lower loss wins, then the earlier step.
    """
    found = [record for record in records if record["split"] == "validation" and record["step"] > 0]
    by = keep if all("rouge_l" in record for record in found) else "loss"
    sign = {"rouge_l": -1, "loss": 1}[by]
    first = min(found, key=lambda record: (sign * record[by], record["loss"], record["step"]))
    return first, by, [record["step"] for record in found if record[by] == first[by] and record is not first]


class _KeepBest(TrainerCallback):
    """Keeps the weights of the best evaluation so far."""

    def __init__(self, job: Job, trainer: ObjectiveTrainer, keep: str):
        self.job, self.trainer, self.keep = job, trainer, keep

    def _best_step(self, state) -> int | None:
        """A job that was cut off may have measured more than it has done now."""
        records = [record for record in self.job.metrics() if record["step"] <= state.global_step]
        evaluated = any(record["split"] == "validation" and record["step"] for record in records)
        return best(records, self.keep)[0]["step"] if evaluated else None

    def on_evaluate(self, args, state, control, model=None, **_):
        is_best = state.global_step and args.should_save and self._best_step(state) == state.global_step
        if not agreed(self.trainer, bool(is_best))[0]:
            return
        weights = full_state(self.trainer.accelerator.unwrap_model(model))
        if args.should_save:
            require_space(self.job.state, 4 * sum(value.numel() for value in model.parameters()), "the best state")
            _save(weights, _best_path(self.job, state.global_step))

    def on_save(self, args, state, control, **_):
        """Others are deleted only now: a job that is cut off before goes back to when one of them was the best."""
        kept = _best_path(self.job, self._best_step(state) or 0)
        for path in self.job.state.glob("best-*.pt") if args.should_save else ():
            if path != kept:
                discard(path)


def _best_path(job: Job, step: int) -> Path:
    return job.state / f"best-{step}.pt"


def _take_best(job: Job, student: PreTrainedModel, settings: Distill) -> dict:
    """Put the weights of the chosen evaluation into the student; give what the manifest says of the choice."""
    if not settings.evaluations or settings.keep == "last":
        return {"kept": {"by": "last"}}
    record, by, ties = best(job.metrics(), settings.keep)
    path = _best_path(job, record["step"])
    if not is_sound(path):
        raise ColpipeError(f"{path}: is damaged; delete {job.state} and run again")
    student.load_state_dict(torch.load(path, map_location=student.device))
    values = {name: record[name] for name in ("step", "loss", "cross_entropy", "rouge_l") if name in record}
    job.say(f"keeps step {record['step']}, the best by {by}" + (f"; as good: {ties}" if ties else ""))
    return {"kept": {"by": by, **values, "as_good": ties}}
