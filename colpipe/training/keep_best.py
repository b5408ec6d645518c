"""Which evaluation of a distillation is published: the best by Rouge-L or by loss, its weights kept until the end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainerCallback

from colpipe.config.stages import Distill
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import require_space
from colpipe.jobs.job import Job
from colpipe.jobs.state import discard, is_valid, mark_complete
from colpipe.training.resumable import any_process
from colpipe.training.sharding import full_state
from colpipe.training.trainer import ObjectiveTrainer


def best_evaluation(records: Sequence[Mapping], keep: str) -> tuple[Mapping, str, list[int]]:
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


class KeepBest(TrainerCallback):
    """A callback that keeps the weights of the best evaluation so far."""

    def __init__(self, job: Job, trainer: ObjectiveTrainer, keep: str):
        self.job, self.trainer, self.keep = job, trainer, keep

    def _best_step(self, state) -> int | None:
        """A job that was cut off may have measured more than it has done now."""
        records = [record for record in self.job.metrics() if record["step"] <= state.global_step]
        evaluated = any(record["split"] == "validation" and record["step"] for record in records)
        return best_evaluation(records, self.keep)[0]["step"] if evaluated else None

    def on_evaluate(self, args, state, control, model=None, **_):
        is_best = state.global_step and args.should_save and self._best_step(state) == state.global_step
        if not any_process(self.trainer, bool(is_best))[0]:
            return
        weights = full_state(self.trainer.accelerator.unwrap_model(model))
        if args.should_save:
            require_space(self.job.state, 4 * sum(value.numel() for value in model.parameters()), "the best state")
            path = best_path(self.job, state.global_step)
            torch.save(weights, path)
            mark_complete(path)

    def on_save(self, args, state, control, **_):
        """Others are deleted only now: a job that is cut off before goes back to when one of them was the best."""
        kept = best_path(self.job, self._best_step(state) or 0)
        for path in self.job.state.glob("best-*.pt") if args.should_save else ():
            if path != kept:
                discard(path)


def best_path(job: Job, step: int) -> Path:
    return job.state / f"best-{step}.pt"


def take_best(job: Job, student: PreTrainedModel, settings: Distill) -> dict:
    """Put the weights of the chosen evaluation into the student; give what the manifest says of the choice."""
    if not settings.evaluations or settings.keep == "last":
        return {"kept": {"by": "last"}}
    record, by, ties = best_evaluation(job.metrics(), settings.keep)
    path = best_path(job, record["step"])
    if not is_valid(path):
        raise ColpipeError(f"{path}: is damaged; delete {job.state} and run again")
    student.load_state_dict(torch.load(path, map_location=student.device))
    values = {name: record[name] for name in ("step", "loss", "cross_entropy", "rouge_l") if name in record}
    job.say(f"keeps step {record['step']}, the best by {by}" + (f"; as good: {ties}" if ties else ""))
    return {"kept": {"by": by, **values, "as_good": ties}}
