"""Training that can be killed anywhere and goes on to the same bits.

transformers' Trainer (and trl's, for SFT) does the work: batching, accumulation, mixed precision, several processes. What
is added here is a state that is complete or not used, saved by the clock or when the scheduler asks for it, progress that
people can read, and a stop at the first loss that is not a number.
"""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from colpipe.checkpoint import require_space
from colpipe.data.tokens import IGNORE
from colpipe.errors import ColpipeError
from colpipe.job import Job
from colpipe.settings import Training
from colpipe.training.device import pick_device
from colpipe.training.objectives import reverse_kl

VALIDATION_ITEMS = 128  # blocks or rows scored at each evaluation during training
COMPLETE = "complete"  # written into a state when all of it is on disk


def train(
    job: Job,
    model: PreTrainedModel,
    settings: Training,
    data: Dataset,
    collator: Callable | None = None,
    validation: Dataset | None = None,
    teacher: PreTrainedModel | None = None,
) -> PreTrainedModel:
    """Train on cross-entropy or, with a teacher, on the reverse KL to it; resume if this job was cut off before.

    Args:
        job: the stage at work; its state folder holds the in-step state, its metrics the curve.
        model: trained in place.
        settings: sizes are global; micro-batch and accumulation are derived from `job.runtime`.
        data: items with input_ids and labels.
        collator: makes a batch of items; None stacks them.
        validation: scored at the start and at `settings.evaluations` evenly spaced steps, the last one included.
        teacher: frozen, of the same vocabulary.

    Raises:
        ColpipeError: the loss is not finite, the device is missing, or the disk has no room for the state.
    """
    arguments = TrainingArguments(**training_arguments(job, settings))
    disable_dropout(model)
    trainer = DistillationTrainer(
        teacher=teacher,
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=validation,
        data_collator=collator,
    )
    return run_resumable(job, trainer, settings)


def training_arguments(job: Job, settings: Training, state: str = "trainer") -> dict:
    """Settings as transformers' training arguments."""
    device = pick_device(job.runtime.device)
    processes = max(1, torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1)
    share, rest = divmod(settings.batch_size, processes)
    if rest:
        raise ColpipeError(f"batch_size {settings.batch_size} cannot be shared evenly by {processes} processes")
    micro = min(job.runtime.micro_batch or share, share)
    while share % micro:
        micro -= 1
    return {
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
        "bf16": settings.precision == "bfloat16",
        "use_cpu": device.type == "cpu",
        "logging_steps": 1,  # every step is in the metrics; a resume would shift the window of a longer average
        "logging_nan_inf_filter": False,  # a broken loss must be seen, not averaged away
        "save_strategy": "no",  # the callback saves by the clock
        "save_total_limit": 2,  # the last complete state outlives the writing of the next
        "include_num_input_tokens_seen": "non_padding",
        "seed": job.seed,
        "data_seed": job.seed,
        "disable_tqdm": True,
        "report_to": [],
    }


def run_resumable(job: Job, trainer: Trainer, settings: Training, label: str = "") -> PreTrainedModel:
    """Run a trainer from its last complete state, if any, to its end; leave with status 143 if told to stop."""
    trainer.add_callback(_Watch(job, trainer, settings, label))
    trainer.remove_callback(PrinterCallback)
    state = _last_complete_state(Path(trainer.args.output_dir))
    if state:
        job.say(f"{label}resumes at step {state.name.rpartition('-')[2]}")
    trainer.train(resume_from_checkpoint=str(state) if state else None)
    if job.stop_requested and trainer.state.global_step < trainer.state.max_steps:
        job.stop()
    return trainer.accelerator.unwrap_model(trainer.model)


def disable_dropout(model: PreTrainedModel) -> None:
    """Train without dropout, as MiniLLM does: a teacher's distribution is the better regulariser."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def validation_items(dataset: Dataset) -> Dataset:
    """The first `VALIDATION_ITEMS` of a data set."""
    return Subset(dataset, range(min(VALIDATION_ITEMS, len(dataset))))


def mixed(datasets: list[Dataset]) -> Dataset:
    """Several data sets as one; shuffling mixes them item by item."""
    return datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)


class DistillationTrainer(Trainer):
    """A Trainer whose loss is the reverse KL to a frozen teacher where there is one, else cross-entropy."""

    def __init__(self, teacher: PreTrainedModel | None = None, **arguments):
        super().__init__(**arguments)
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False) if teacher else None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.teacher is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.pop("labels")
        predicts = labels[:, 1:] != IGNORE  # position t predicts token t + 1
        student = self.accelerator.unwrap_model(model)
        hidden = student.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1][predicts]
        with torch.no_grad():
            teacher_hidden = self.teacher.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1][predicts]
        loss = reverse_kl(
            hidden, student.get_output_embeddings().weight, teacher_hidden, self.teacher.get_output_embeddings().weight
        )
        loss = loss / (predicts.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None


def _last_complete_state(folder: Path) -> Path | None:
    """The newest state that was written to its end; unfinished ones are removed."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for state in [state for state in states if not (state / COMPLETE).exists()]:
        shutil.rmtree(state)
        states.remove(state)
    return states[-1] if states else None


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
        due = now - self.saved >= 60 * self.job.runtime.save_minutes
        if (due or self.job.stop_requested) and not last:
            parameters = sum(parameter.numel() for parameter in self.trainer.model.parameters())
            require_space(Path(args.output_dir), 12 * parameters, "the in-step state")  # weights and two momenta
            control.should_save = True
        if self.job.stop_requested and not last:
            control.should_training_stop = True
        if state.global_step in self.evaluation_steps:
            control.should_evaluate = True

    def on_save(self, args, state, control, **_):
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()
        self.saved = time.monotonic()

    def on_log(self, args, state, control, logs=None, **_):
        state.log_history.clear()  # our metrics hold it; the saved state stays small
        tokens = int(state.num_input_tokens_seen)
        if "eval_loss" in logs:
            self._record(state.global_step, tokens, "validation", logs["eval_loss"])
            self.job.say(f"{self.label}step {state.global_step}: validation loss {logs['eval_loss']:.4f}")
        if "loss" not in logs:
            return
        now = time.monotonic()
        speed = (tokens - self.first_tokens) / (now - self.begun)
        self._record(
            state.global_step,
            tokens,
            "train",
            logs["loss"],
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            tokens_per_second=round(speed),
        )
        if now - self.shown >= self.job.runtime.progress_seconds or state.global_step >= state.max_steps:
            self.shown = now
            left = (state.max_steps - state.global_step) * (now - self.begun) / (state.global_step - self.first_step)
            self.job.say(
                f"{self.label}step {state.global_step}/{state.max_steps}, loss {logs['loss']:.4f}, "
                f"{speed:,.0f} tokens/s, {left // 60:.0f}:{left % 60:02.0f} left"
            )

    def _record(self, step: int, tokens: int, split: str, loss: float, **more) -> None:
        if not math.isfinite(loss):
            raise ColpipeError(
                f"{self.label}{split} loss is {loss} at step {step}; lower learning_rate or max_grad_norm "
                f"(the last good state is in {self.trainer.args.output_dir})"
            )
        self.job.measure(
            **({"phase": self.label.strip(" :")} if self.label else {}),
            step=step,
            tokens=tokens,
            split=split,
            loss=loss,
            **more,
        )
