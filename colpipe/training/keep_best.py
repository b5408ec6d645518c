"""Which evaluation of a training is published: the best by Rouge-L or by loss; its weights are kept until the end.

Recovery and pre-training count the start too, so that they make no model worse. Distillation does not: a student cut out of
its teacher diverges little from it and may be the worse model, and the submodels of an elastic member have not learnt yet.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback

from colpipe.config.stages import Distill, Pretrain, Training
from colpipe.errors import ColpipeError
from colpipe.evaluation.remark import worse_than_guessing
from colpipe.jobs.artifacts import require_space
from colpipe.jobs.job import Job
from colpipe.jobs.state import discard, is_valid, mark_complete
from colpipe.training.resumable import any_process
from colpipe.training.sharding import full_state

MEASURED = ("loss", "cross_entropy", "rouge_l")  # of a validation record


def best_evaluation(records: Sequence[Mapping], keep: str) -> tuple[Mapping, str, list[int]]:
    """The best of the validation records.

    Returns:
        The record; what it was chosen by (`loss` where answers were not scored); the steps that are as good by that. Among
        these the lower loss wins, then the earlier step.
    """
    by = keep if all("rouge_l" in record for record in records) else "loss"
    sign = {"rouge_l": -1, "loss": 1}[by]
    first = min(records, key=lambda record: (sign * record[by], record["loss"], record["step"]))
    return first, by, [record["step"] for record in records if record[by] == first[by] and record is not first]


def candidates(records: Sequence[Mapping], settings: Training) -> list[Mapping]:
    """The validation records whose state may be published."""
    earliest = 1 if isinstance(settings, Distill) else 0
    return [record for record in records if record["split"] == "validation" and record["step"] >= earliest]


class KeepBest(TrainerCallback):
    """A callback that keeps the weights of the best evaluation so far."""

    def __init__(self, job: Job, trainer: Trainer, settings: Distill | Pretrain):
        self.job, self.trainer, self.settings = job, trainer, settings

    def _best_step(self, state) -> int | None:
        """A job that was cut off may have measured more than it has done now."""
        records = [record for record in self.job.metrics() if record["step"] <= state.global_step]
        found = candidates(records, self.settings)
        return best_evaluation(found, self.settings.keep)[0]["step"] if found else None

    def on_evaluate(self, args, state, control, model=None, **_):
        is_best = args.should_save and self._best_step(state) == state.global_step
        if not any_process(self.trainer, bool(is_best))[0]:
            return
        weights = full_state(self.trainer.accelerator.unwrap_model(self.trainer.model))
        if args.should_save:
            require_space(
                self.job.state, 4 * sum(value.numel() for value in self.trainer.model.parameters()), "the best state"
            )
            path = best_path(self.job, state.global_step)
            torch.save(weights, path)
            mark_complete(path)

    def on_save(self, args, state, control, **_):
        """Others are deleted only now: a job that is cut off before goes back to when one of them was the best."""
        if not args.should_save:
            return
        best = self._best_step(state)
        for path in self.job.state.glob("best-*.pt"):
            if best is None or path != best_path(self.job, best):
                discard(path)


def best_path(job: Job, step: int) -> Path:
    return job.state / f"best-{step}.pt"


def keep_best(job: Job, trainer: Trainer, settings: Training) -> KeepBest | None:
    """The callback that `settings.keep` needs, if any."""
    if not isinstance(settings, Distill | Pretrain) or settings.keep == "last":
        return None
    return KeepBest(job, trainer, settings) if settings.evaluations and trainer.eval_dataset is not None else None


def take_best(job: Job, model: PreTrainedModel, settings: Distill | Pretrain) -> dict:
    """Put the weights of the chosen evaluation into the model; give what the manifest says of the choice.

    A model that is worse than it began, or than a uniform guess, is said to be so.

    Raises:
        ColpipeError: the kept weights are damaged.
    """
    records = job.metrics()
    found = candidates(records, settings)
    start = next((each for each in records if each["split"] == "validation" and not each["step"]), None)
    record: Mapping
    entry: dict
    if not found or settings.keep == "last":
        record, entry = (found[-1] if found else {}), {"by": "last"}
    else:
        record, by, ties = best_evaluation(found, settings.keep)
        path = best_path(job, record["step"])
        if not is_valid(path):
            raise ColpipeError(f"{path}: is damaged; delete {job.state} and run again")
        model.load_state_dict(torch.load(path, map_location=model.device))
        values = {name: record[name] for name in MEASURED if name in record}
        entry = {"by": by, "step": record["step"], **values, "as_good": ties}
        job.say(
            f"keeps step {record['step']}{', the start' * (not record['step'])}, the best by {by} of {len(found)} "
            f"evaluations: {_measured(record)}"
            + (f" (at the start: {_measured(start)})" if start and record["step"] else "")
            + (f"; as good: {ties}" if ties else "")
        )
    if "loss" in record:
        loss, vocabulary = _on_text(record), len(model.get_input_embeddings().weight)
        if start and loss > _on_text(start):
            job.say(
                f"worse than at its start: {_on_text(start):.4f} nats a token of the validation text then, {loss:.4f} now; "
                f"try a lower learning_rate than {settings.learning_rate:g}, or more steps"
            )
        if worse := worse_than_guessing(loss, vocabulary):
            job.say(f"validation loss {loss:.4f}: the model is broken, {worse}")
    return {"kept": entry}


def _measured(record: Mapping) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {record[name]:.4f}" for name in MEASURED if name in record)


def _on_text(record: Mapping) -> float:
    """Cross entropy on the validation text, which a distillation has beside its loss."""
    return record.get("cross_entropy", record["loss"])
