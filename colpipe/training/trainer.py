"""Training that can be killed anywhere and goes on to the same bits.

transformers' Trainer (and trl's, for SFT) does the work: batching, accumulation, mixed precision, several processes. What
is added here is a state that is complete or not used, saved by the clock or when the scheduler asks for it, progress that
people can read, and a stop at the first loss that is not a number.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from colpipe.checkpoint import require_space
from colpipe.data.tokens import IGNORE
from colpipe.device import leave_processes, pick_device, require_precision
from colpipe.errors import ColpipeError
from colpipe.job import METRICS, Job
from colpipe.stage_settings import Training
from colpipe.states import is_sealed, is_sound, seal
from colpipe.training import sharding
from colpipe.training.models import disable_dropout
from colpipe.training.objectives import Objective, Projection, Signal, chunked, cross_entropy, reverse_kl

if TYPE_CHECKING:  # pre-training and recovery do not depend on it
    from colpipe.training.elastic import Parts

VALIDATION = (
    "eval_cross_entropy",
    "eval_smallest_cross_entropy",
    "eval_rouge_l",
)  # recorded beside the validation loss
COLUMNS = ("advantages", "sampled", "top_ids", "top_logs")  # what a batch may hold beside a model's inputs and labels


def train(
    job: Job,
    model: PreTrainedModel,
    settings: Training,
    data: Dataset,
    collator: Callable | None = None,
    validation: Dataset | None = None,
) -> PreTrainedModel:
    """Train on cross-entropy; resume if this job was cut off before.

    Args:
        job: the stage at work; its state folder holds the in-step state, its metrics the curve.
        model: trained in place.
        settings: sizes are global; micro-batch and accumulation are derived from `job.runtime`.
        data: items with input_ids and labels.
        collator: makes a batch of items; None stacks them.
        validation: scored at the start and at `settings.evaluations` evenly spaced steps, the last one included.

    Raises:
        ColpipeError: the loss is not finite, the device is missing, or the disk has no room for the state.
    """
    disable_dropout(model)
    trainer = ObjectiveTrainer(
        model=model,
        args=TrainingArguments(**training_arguments(job, settings)),
        train_dataset=data,
        eval_dataset=validation,
        collate_rows=collator,
    )
    return run_resumable(job, trainer, settings)


def training_arguments(job: Job, settings: Training, state: str = "trainer") -> dict:
    """Settings as transformers' training arguments."""
    device = pick_device(job.runtime.device)
    require_precision(device, settings.precision)
    processes = int(os.environ.get("WORLD_SIZE", 1))  # set by what starts several, before they know each other
    share, rest = divmod(settings.batch_size, processes)
    if rest:
        raise ColpipeError(f"batch_size {settings.batch_size} cannot be shared evenly by {processes} processes")
    micro = min(job.runtime.micro_batch or share, share)
    while share % micro:
        micro -= 1
    return {
        **(sharding.ARGUMENTS if job.runtime.shard and processes > 1 else {}),
        "output_dir": str(job.state / state),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "max_steps": settings.steps or -1,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "warmup_steps": settings.warmup_steps,
        "adam_beta1": settings.betas[0],
        "adam_beta2": settings.betas[1],
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "activation_checkpointing": job.runtime.gradient_checkpointing,
        "bf16": settings.precision == "bfloat16",
        "use_cpu": device.type == "cpu",
        "logging_steps": 1,  # every step is in the metrics; a resume would shift the window of a longer average
        "logging_nan_inf_filter": False,  # a broken loss must be seen, not averaged away
        "save_strategy": "no",  # the callback saves by the clock
        "save_total_limit": 2,  # the last complete state outlives the writing of the next
        "include_num_input_tokens_seen": "non_padding",
        "seed": job.seed,
        "data_seed": job.seed,
        "remove_unused_columns": False,  # objectives look at more than a model's inputs
        "disable_tqdm": True,
        "report_to": [],
    }


def run_resumable(
    job: Job, trainer: Trainer, settings: Training, label: str = "", callback: TrainerCallback | None = None
) -> PreTrainedModel:
    """Run a trainer from its last complete state, if any, to its end; leave with status 143 if told to stop.

    Args:
        callback: called after ours, which measures, and marks states that are complete.
    """
    trainer.add_callback(_Watch(job, trainer, settings, label))
    if callback:
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    if trainer.accelerator.num_processes > 1:
        job.say(f"{trainer.accelerator.num_processes} processes{', the model shared out' * trainer.is_fsdp_enabled}")
    state = _last_sound_state(Path(trainer.args.output_dir), job)
    if state and (state / "pytorch_model_fsdp_0").exists() != trainer.is_fsdp_enabled:
        raise ColpipeError(
            f"{state}: was saved with{'out' if trainer.is_fsdp_enabled else ''} runtime.shard on several devices; "
            "go on so, or delete it"
        )
    if state:
        job.say(f"{label}resumes at step {state.name.rpartition('-')[2]}")
    trainer.train(resume_from_checkpoint=str(state) if state else None)
    model = sharding.gathered(trainer.accelerator.unwrap_model(trainer.model), job.is_main)
    job.ledger.keep()  # before the main process adds up
    leave_processes()
    if trainer.state.global_step < trainer.state.max_steps:
        job.stop()
    if not job.is_main:  # what is left to do, the main process does
        raise SystemExit(0)
    return model


class RemembersBatch:
    """Mixed into a Trainer: knows the batches of the update at work, for the message when its loss breaks, and the wait.

    Attributes:
        waited: seconds that updates have waited for their batches.
    """

    batches: list = []
    waited = 0.0

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        asked = time.monotonic()
        self.batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.waited += time.monotonic() - asked
        return self.batches, tokens


class Rows(NamedTuple):
    """A batch where there is loss: position t predicts token t + 1."""

    inputs: dict
    """what the models read"""
    predicts: torch.Tensor
    """(B, T − 1) where there is loss"""
    labels: torch.Tensor
    """(N,)"""
    columns: dict
    """other columns, (N, …) each"""
    teacher: Projection | Signal | None


class ObjectiveTrainer(RemembersBatch, Trainer):
    """A Trainer whose loss is an objective of hidden states and output heads.

    Args:
        objective: what makes it, from the labels (N,) and the other columns, by name, where there is loss; None is
            cross-entropy.
        teacher: frozen; its projection is what the objective gets. Where batches have the columns `top_ids` and `top_logs`,
            these take its place.
        taught: whether the objective looks at the teacher; where it does not, validation alone does.
        parts: smaller shapes inside the model that learn with it.
        part_objective: makes theirs.
        answer_score: Rouge-L of a model's answers, for validation.
        collate_rows: makes a batch of items; None stacks them.
    """

    def __init__(
        self,
        objective: Callable[[torch.Tensor, dict], Objective] | None = None,
        teacher: PreTrainedModel | None = None,
        taught: bool = True,
        parts: "Parts | None" = None,
        part_objective: Callable[[torch.Tensor, dict], Objective] | None = None,
        answer_score: Callable[[PreTrainedModel], float] | None = None,
        collate_rows: Callable | None = None,
        **arguments,
    ):
        self.collate_rows = collate_rows or default_data_collator
        super().__init__(data_collator=self.collate_rows, **arguments)
        self.objective = objective or (lambda labels, columns: cross_entropy(labels))
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False) if teacher else None
        self.taught, self.parts, self.part_objective = taught, parts, part_objective
        if parts and self.is_fsdp_enabled:
            raise ColpipeError("runtime.shard: an elastic member's parts are cut out of whole weights; set it to false")
        self.answer_score = answer_score

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with self.accelerator.autocast():  # the loop has it around a model's own forward only
            rows = self.rows(inputs, self.taught)
        tokens = max(1, len(rows.labels)) if num_items_in_batch is None else num_items_in_batch
        if num_items_in_batch is not None:
            tokens = tokens / self.accelerator.num_processes  # whose gradients are averaged
        # Parts go first and backward at once: one graph is held at a time, and where processes share gradients, they do so
        # in the model's own backward pass, which comes last.
        for sizes in self.parts.at(self.state.global_step, self.state.max_steps) if self.parts else ():
            with self.accelerator.autocast():
                loss = self.loss_of(self.parts.projection(sizes), rows, self.part_objective, tokens)
            self.accelerator.backward(self.parts.settings.weight * loss)
        with self.accelerator.autocast():
            loss = self.loss_of(partial(project, model), rows, self.objective, tokens)
        return (loss, {}) if return_outputs else loss

    def loss_of(
        self, student: Callable[[dict, torch.Tensor], Projection], rows: Rows, objective, tokens
    ) -> torch.Tensor:
        """Loss of the model or of a part of it, a mean over `tokens`."""
        return chunked(objective(rows.labels, rows.columns), student(rows.inputs, rows.predicts), rows.teacher) / tokens

    def rows(self, inputs: dict, taught: bool = True) -> Rows:
        """The batch where there is loss, and, if it is `taught`, what the teacher says of it."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")[:, 1:]
        predicts = labels != IGNORE
        columns = {name: inputs.pop(name)[:, 1:][predicts] for name in COLUMNS if name in inputs}
        teacher = None
        if "top_ids" in columns:
            teacher = Signal(columns["top_ids"], columns["top_logs"])
        elif taught and self.teacher is not None:
            with torch.no_grad():
                teacher = project(self.teacher, inputs, predicts)
        return Rows(inputs, predicts, labels[predicts], columns, teacher)

    def evaluate(self, *_, **__) -> dict[str, float]:
        """Validation, means over tokens: `eval_loss` is the reverse KL to the teacher, or the cross-entropy without one.

        Every process looks at all of it.
        """
        self.model.eval()
        kl = cross = smallest = tokens = 0.0
        loader = DataLoader(self.eval_dataset, self.args.eval_batch_size, collate_fn=self.collate_rows)
        with torch.no_grad():
            for batch in loader:
                with self.accelerator.autocast():
                    rows = self.rows(self._prepare_inputs(batch))
                    student, labels = project(self.model, rows.inputs, rows.predicts), cross_entropy(rows.labels)
                    cross += chunked(labels, student, None).item()
                    kl += chunked(reverse_kl, student, rows.teacher).item() if rows.teacher else 0.0
                    if self.parts:
                        part = self.parts.projection(self.parts.smallest)(rows.inputs, rows.predicts)
                        smallest += chunked(labels, part, None).item()
                tokens += len(rows.labels)
            metrics = {"eval_loss": cross / tokens}
            if rows.teacher:
                metrics = {"eval_loss": kl / tokens, "eval_cross_entropy": cross / tokens}
            if self.parts:
                metrics["eval_smallest_cross_entropy"] = smallest / tokens
            if self.answer_score:
                metrics["eval_rouge_l"] = self.answer_score(self.accelerator.unwrap_model(self.model))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def project(model: torch.nn.Module, inputs: dict, predicts: torch.Tensor) -> Projection:
    """Last hidden states of a model where `predicts` (B, T − 1) says, and its output head.

    A model that is wrapped, to share its gradients with other processes, must be called as a whole for that to happen; of
    the logits that it then computes as well, one position is the least that can be asked for.
    """
    plain = getattr(model, "module", model)
    if sharding.is_sharded(model):
        sharding.keep_head(model)
    if plain is model and not sharding.is_sharded(model):
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    else:
        hidden = model(**inputs, use_cache=False, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
    head = plain.get_output_embeddings()
    return Projection(hidden[:, :-1][predicts], head.weight, getattr(head, "bias", None))


def _last_sound_state(folder: Path, job: Job) -> Path | None:
    """The newest state that was written to its end and is not damaged; those after it are removed."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
    for state in states:
        if is_sound(state):
            return state
        if job.is_main:
            if is_sealed(state):
                job.say(f"{state}, or {job.state / METRICS}, is damaged: not used")
            shutil.rmtree(state)
    return None


def agreed(trainer: Trainer, *flags: bool) -> list[bool]:
    """Which flags any of the processes has: they must save, and stop, at the same step."""
    if trainer.accelerator.num_processes == 1:
        return list(flags)
    sums = trainer.accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=trainer.args.device))
    return [bool(value) for value in sums.tolist()]


class _Watch(TrainerCallback):
    """Saves, evaluates, measures and reports around transformers' training loop."""

    def __init__(self, job: Job, trainer: Trainer, settings: Training, label: str):
        self.job, self.trainer, self.label = job, trainer, label
        self.evaluations = settings.evaluations if trainer.eval_dataset is not None else 0
        self.evaluation_steps: set[int] = set()

    def on_train_begin(self, args, state, control, **_):
        parts = range(1, self.evaluations + 1)
        self.evaluation_steps = {round(state.max_steps * part / self.evaluations) for part in parts}
        self.begun = self.saved = self.shown = time.monotonic()
        self.first_step, self.first_tokens = state.global_step, state.num_input_tokens_seen
        if self.evaluations and state.global_step == 0:
            self.trainer.evaluate()

    def on_step_end(self, args, state, control, **_):
        now, last = time.monotonic(), state.global_step >= state.max_steps
        due = self.job.is_main and now - self.saved >= 60 * self.job.runtime.save_minutes
        due, stop = agreed(self.trainer, due, self.job.should_stop())
        if (due or stop) and not last:
            parameters = sum(parameter.numel() for parameter in self.trainer.model.parameters())
            require_space(Path(args.output_dir), 12 * parameters, "the in-step state")  # weights and two momenta
            control.should_save = True
        if stop and not last:
            control.should_training_stop = True
        if state.global_step in self.evaluation_steps:
            control.should_evaluate = True

    def on_save(self, args, state, control, **_):
        self.job.ledger.keep()
        self.trainer.accelerator.wait_for_everyone()  # each writes a part of the state
        if self.job.is_main:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.job.state / METRICS)
        self.saved = time.monotonic()

    def on_log(self, args, state, control, logs=None, **_):
        state.log_history.clear()  # our metrics hold it; the saved state stays small
        tokens = int(state.num_input_tokens_seen)
        if "eval_loss" in logs:
            more = {name.removeprefix("eval_"): value for name, value in logs.items() if name in VALIDATION}
            self._record(state.global_step, tokens, "validation", logs["eval_loss"], **more)
            shown = "".join(f", {name.replace('_', ' ')} {value:.4f}" for name, value in more.items())
            self.job.say(f"{self.label}step {state.global_step}: validation loss {logs['eval_loss']:.4f}{shown}")
        if "loss" not in logs:
            return
        now = time.monotonic()
        speed = (tokens - self.first_tokens) / (now - self.begun)
        wait = round(self.trainer.waited / (now - self.begun), 4)
        self._record(
            state.global_step,
            tokens,
            "train",
            logs["loss"],
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            tokens_per_second=round(speed),
            data_wait=wait,
        )
        last = state.global_step >= state.max_steps
        if now - self.shown >= self.job.runtime.progress_seconds or last:
            self.shown = now
            left = (state.max_steps - state.global_step) * (now - self.begun) / (state.global_step - self.first_step)
            self.job.say(
                f"{self.label}step {state.global_step}/{state.max_steps}, loss {logs['loss']:.4f}, "
                f"{speed:,.0f} tokens/s, {left // 60:.0f}:{left % 60:02.0f} left"
                + (f", {wait:.1%} of the time waiting for data" if last else "")
            )

    def _record(self, step: int, tokens: int, split: str, loss: float, **more) -> None:
        for name, value in (("loss", loss), ("gradient norm", more.get("grad_norm"))):
            if value is None or math.isfinite(value):
                continue
            kept = self.job.work / f"broken-step-{step}.json"
            if self.job.is_main:
                kept.write_text(json.dumps([batch["input_ids"].tolist() for batch in self.trainer.batches]))
            raise ColpipeError(
                f"{self.label}{split} {name} is {value} at step {step}; lower learning_rate or max_grad_norm (the step's "
                f"token ids are in {kept}, the last good state in {self.trainer.args.output_dir})"
            )
        self.job.measure(
            **({"phase": self.label.strip(" :")} if self.label else {}),
            step=step,
            tokens=tokens,
            split=split,
            loss=loss,
            **more,
        )
