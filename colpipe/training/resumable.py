"""Training that can be killed anywhere and goes on to the same bits.

transformers' Trainer (and trl's, for SFT) does the work. What is added here is a state that is complete or not used, saved
by the clock or when the scheduler asks for it; validation at even distances, and an end where that is good enough; progress
that people can read; and a stop at the first loss that is not a number.
"""

import json
import math
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback

from colpipe.config.stages import Training
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import require_space
from colpipe.jobs.device import leave_processes
from colpipe.jobs.job import METRICS, Job, clock
from colpipe.jobs.state import is_complete, is_valid, mark_complete
from colpipe.training import sharding
from colpipe.training.arguments import warmup_steps
from colpipe.training.trackers import reported

# Recorded beside the validation loss.
VALIDATION = ("eval_cross_entropy", "eval_smallest_cross_entropy", "eval_rouge_l")


class _Reached(Exception):
    """The target is reached before any step is taken: at the start, or in the state that a job goes on from."""


def run_resumable(
    job: Job,
    trainer: Trainer,
    settings: Training,
    label: str = "",
    callback: TrainerCallback | None = None,
    target: float | None = None,
) -> PreTrainedModel:
    """Run a trainer from its last complete state, if any, to its end; leave with status 143 if told to stop.

    Args:
        callback: called after ours, which measures, and marks states as complete.
        target: validation loss, nats per token; the first evaluation that is not above it is the end. None: there is none.
    """
    watch = _Watch(job, trainer, settings, label, target)
    trainer.add_callback(watch)
    if callback:
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    if trainer.accelerator.num_processes > 1:
        job.say(f"{trainer.accelerator.num_processes} processes{', the model sharded' * trainer.is_fsdp_enabled}")
        rows = len(trainer.train_dataset)
        filled = -rows % (trainer.args.train_batch_size * trainer.accelerator.num_processes)
        if filled and (settings.steps is None or settings.steps * settings.batch_size >= rows):
            job.say(f"the last batch of each epoch is filled up with {filled} of its first rows")
    state = _last_valid_state(Path(trainer.args.output_dir), job)
    if state and (state / "pytorch_model_fsdp_0").exists() != trainer.is_fsdp_enabled:
        raise ColpipeError(
            f"{state}: was saved with{'out' if trainer.is_fsdp_enabled else ''} runtime.shard on several devices; "
            "go on so, or delete it"
        )
    step = int(state.name.rpartition("-")[2]) if state else 0
    if state:
        job.event("resumed", f"{label}resumes at step {step}")
    with reported(job, trainer, step, label):
        try:
            trainer.train(resume_from_checkpoint=str(state) if state else None)
        except _Reached:  # trackers end their runs here
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    model = sharding.gathered(trainer.accelerator.unwrap_model(trainer.model), job.is_main)
    job.ledger.keep()  # before the main process adds up
    leave_processes()
    if trainer.state.global_step < trainer.state.max_steps and not watch.is_reached:
        job.stop()
    if not job.is_main:  # what is left to do, the main process does
        raise SystemExit(0)
    return model


def reached(records: Iterable[Mapping], target: float) -> Mapping | None:
    """The first validation record, by its step, whose loss is not above the target; None where there is none."""
    found = [record for record in records if record["split"] == "validation" and record["loss"] <= target]
    return min(found, key=lambda record: record["step"], default=None)


class RemembersBatch:
    """Mixed into a Trainer: remembers the batches of the current update, for the message when its loss breaks, and the
    time that updates waited for data. A warm-up that is a share of the steps becomes steps.

    Attributes:
        data_wait: seconds that updates have waited for their batches.
        sampling: seconds that completions have taken.
    """

    batches: list = []
    data_wait = 0.0
    sampling = 0.0

    def sampling_left(self) -> float | None:
        """Seconds that completions will take; None where that is not known yet."""
        return 0.0

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        self.args.warmup_steps = warmup_steps(self.args.warmup_steps, num_training_steps)  # type: ignore[attr-defined]
        return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        started = time.monotonic()
        batches = super().get_batch_samples  # type: ignore[misc]  # the Trainer's that this is mixed into
        self.batches, tokens = batches(epoch_iterator, num_batches, device)
        self.data_wait += time.monotonic() - started
        return self.batches, tokens


def _last_valid_state(folder: Path, job: Job) -> Path | None:
    """The newest state that was written to its end and is not damaged; those after it are removed."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
    for state in states:
        if is_valid(state):
            return state
        if job.is_main:
            if is_complete(state):
                job.event("state not used", f"{state}, or {job.state / METRICS}, is damaged: not used")
            shutil.rmtree(state)
    return None


def any_process(trainer: Trainer, *flags: bool) -> list[bool]:
    """Which flags any of the processes has: they must save, and stop, at the same step."""
    if trainer.accelerator.num_processes == 1:
        return list(flags)
    sums = trainer.accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=trainer.args.device))
    return [bool(value) for value in sums.tolist()]


class _Watch(TrainerCallback):
    """Saves, evaluates, measures and reports around transformers' training loop."""

    def __init__(self, job: Job, trainer: Trainer, settings: Training, label: str, target: float | None):
        self.job, self.trainer, self.label = job, trainer, label
        self.target, self.is_reached = target, False
        self.evaluations = settings.evaluations if trainer.eval_dataset is not None else 0
        self.evaluation_steps: set[int] = set()

    def on_train_begin(self, args, state, control, **_):
        numbers = range(1, self.evaluations + 1)
        self.evaluation_steps = {round(state.max_steps * number / self.evaluations) for number in numbers}
        self.started = self.last_save = self.last_progress = time.monotonic()
        self.first_step, self.first_tokens = state.global_step, state.num_input_tokens_seen
        if self.evaluations and state.global_step == 0:
            self.trainer.evaluate()
        elif self.target is not None:  # a job that was cut off may have measured more than it has done now
            records = [record for record in self.job.metrics() if record["step"] <= state.global_step]
            self._decide(reached(records, self.target) is not None)
        if self.is_reached:
            raise _Reached

    def on_evaluate(self, args, state, control, metrics, **_):
        if self.target is not None:
            self._decide(metrics["eval_loss"] <= self.target)
            control.should_training_stop |= self.is_reached

    def _decide(self, is_reached: bool) -> None:
        """Of several processes, the main one, which measures, says for all of them whether the target is reached."""
        [self.is_reached] = any_process(self.trainer, self.job.is_main and is_reached)

    def on_step_end(self, args, state, control, **_):
        now, last = time.monotonic(), state.global_step >= state.max_steps
        due = self.job.is_main and now - self.last_save >= 60 * self.job.runtime.save_minutes
        due, stop = any_process(self.trainer, due, self.job.should_stop())
        if (due or stop) and not last:
            parameters = sum(parameter.numel() for parameter in self.trainer.model.parameters())
            require_space(Path(args.output_dir), 12 * parameters, "the in-step state")  # weights and optimizer state
            control.should_save = True
        if stop and not last:
            control.should_training_stop = True
        if state.global_step in self.evaluation_steps:
            control.should_evaluate = True

    def on_save(self, args, state, control, **_):
        self.job.ledger.keep()
        self.trainer.accelerator.wait_for_everyone()  # each writes its share of the state
        if self.job.is_main:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.job.state / METRICS)
        self.last_save = time.monotonic()

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
        speed = (tokens - self.first_tokens) / (now - self.started)
        wait = round(self.trainer.data_wait / (now - self.started), 4)
        logs |= {"tokens_per_second": round(speed), "data_wait": wait}  # for trackers, which look at them after this
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
        if now - self.last_progress >= self.job.runtime.progress_seconds or last:
            self.last_progress = now
            steps, sampling = state.max_steps - state.global_step, self.trainer.sampling_left()
            left = steps * (now - self.started - self.trainer.sampling) / (state.global_step - self.first_step)
            shown = "unknown" if sampling is None else clock(left + sampling)
            share = f"{wait:.1%}"
            waited = f", {share} of the time waiting for data" if last and share != "0.0%" else ""
            self.job.say(
                f"{self.label}step {state.global_step}/{state.max_steps}, loss {logs['loss']:.4f}, "
                f"{speed:,.0f} tokens/s, {'at most ' * (self.target is not None)}{shown} left{waited}"
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
