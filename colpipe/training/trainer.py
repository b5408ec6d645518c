"""A transformers Trainer whose loss is an objective of hidden states and output heads.

The Trainer does batching, accumulation, mixed precision and several processes; `resumable.py` saves, resumes and reports.
Overridden are its public methods `compute_loss`, `evaluate` and `get_batch_samples`.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, Trainer, TrainerControl, TrainingArguments, default_data_collator

from colpipe.config.stages import Training
from colpipe.errors import ColpipeError
from colpipe.hf.models import disable_dropout
from colpipe.jobs.job import Job
from colpipe.training.arguments import training_arguments
from colpipe.training.keep_best import keep_best
from colpipe.training.objectives import Objective, Projection, TopK, chunked, cross_entropy, reverse_kl
from colpipe.training.projection import chosen, loss_places, project
from colpipe.training.resumable import RemembersBatch, run_resumable

if TYPE_CHECKING:  # pre-training and recovery do not depend on it
    from colpipe.training.elastic import Submodels

COLUMNS = ("advantages", "sampled", "top_ids", "top_logs")  # what a batch may hold beside a model's inputs and labels


def train(
    job: Job,
    model: PreTrainedModel,
    settings: Training,
    data: Dataset,
    collator: Callable | None = None,
    validation: Dataset | None = None,
    target: float | None = None,
) -> PreTrainedModel:
    """Train on cross-entropy; resume if this job was cut off before.

    The model is that of the last step; where the settings keep the best evaluation, `take_best` puts that into it.

    Args:
        job: the stage at work; its state folder holds the in-step state, its metrics the curve.
        model: trained in place.
        settings: sizes are global; micro-batch and accumulation are derived from `job.runtime`.
        data: items with input_ids and labels.
        collator: makes a batch of items; None stacks them.
        validation: scored at the start and at `settings.evaluations` evenly spaced steps, the last one included.
        target: validation loss, nats per token, at which training ends; None: at its last step.

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
    return run_resumable(job, trainer, settings, callback=keep_best(job, trainer, settings), target=target)


class LossRows(NamedTuple):
    """A batch where there is loss: position t predicts token t + 1."""

    inputs: dict
    """what the models read"""
    places: torch.Tensor
    """(N,) where there is loss, in the rows end to end"""
    labels: torch.Tensor
    """(N,)"""
    columns: dict
    """other columns, (N, …) each"""
    teacher: Projection | TopK | None


class ObjectiveTrainer(RemembersBatch, Trainer):
    """A Trainer whose loss is an objective of hidden states and output heads.

    Args:
        objective: what makes it, from the labels (N,) and the other columns, by name, where there is loss; None is
            cross-entropy.
        teacher: frozen; its projection is what the objective gets. Where batches have the columns `top_ids` and `top_logs`,
            these take its place.
        uses_teacher: whether the objective looks at the teacher; where it does not, validation alone does.
        submodels: smaller shapes inside the model that learn with it.
        submodel_objective: makes theirs.
        validation_objective: makes that of validation, if there is a teacher; None is the reverse KL.
        answer_score: Rouge-L of a model's answers, for validation.
        collate_rows: makes a batch of items; None stacks them.
    """

    def __init__(
        self,
        objective: Callable[[torch.Tensor, dict], Objective] | None = None,
        teacher: PreTrainedModel | None = None,
        uses_teacher: bool = True,
        submodels: "Submodels | None" = None,
        submodel_objective: Callable[[torch.Tensor, dict], Objective] | None = None,
        validation_objective: Callable[[torch.Tensor, dict], Objective] | None = None,
        answer_score: Callable[[PreTrainedModel], float] | None = None,
        collate_rows: Callable | None = None,
        **arguments,
    ):
        self.collate_rows = collate_rows or default_data_collator
        super().__init__(data_collator=self.collate_rows, **arguments)
        self.objective = objective or (lambda labels, columns: cross_entropy(labels))
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False) if teacher else None
        self.uses_teacher, self.submodels, self.submodel_objective = uses_teacher, submodels, submodel_objective
        if submodels and self.is_fsdp_enabled:
            raise ColpipeError(
                "runtime.shard: an elastic member's submodels are cut out of full weights; set it to false"
            )
        self.validation_objective = validation_objective or (lambda labels, columns: reverse_kl)
        self.answer_score = answer_score

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with self.accelerator.autocast():  # the loop has it around a model's own forward only
            rows = self.rows(inputs, self.uses_teacher)
        tokens = max(1, len(rows.labels)) if num_items_in_batch is None else num_items_in_batch
        if num_items_in_batch is not None:
            tokens = tokens / self.accelerator.num_processes  # whose gradients are averaged
        # Submodels go first and backward at once: one graph is held at a time, and where processes average gradients, they
        # do so in the model's own backward pass, which comes last.
        if submodels := self.submodels:
            for sizes in submodels.at(self.state.global_step, self.state.max_steps):
                with self.accelerator.autocast():
                    loss = self.loss_of(submodels.projection(sizes), rows, self.submodel_objective, tokens)
                self.accelerator.backward(submodels.settings.weight * loss)
        with self.accelerator.autocast():
            loss = self.loss_of(partial(project, model), rows, self.objective, tokens)
        return (loss, {}) if return_outputs else loss

    def loss_of(
        self, student: Callable[[dict, torch.Tensor], Projection], rows: LossRows, objective, tokens
    ) -> torch.Tensor:
        """Loss of the model or of a submodel, a mean over `tokens`."""
        return chunked(objective(rows.labels, rows.columns), student(rows.inputs, rows.places), rows.teacher) / tokens

    def rows(self, inputs: dict, uses_teacher: bool = True) -> LossRows:
        """The batch where there is loss, and, if it `uses_teacher`, what the teacher says of it."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        places = loss_places(labels)
        columns = {name: chosen(inputs.pop(name), places + 1) for name in COLUMNS if name in inputs}
        teacher: Projection | TopK | None = None
        if "top_ids" in columns:
            teacher = TopK(columns["top_ids"], columns["top_logs"])
        elif uses_teacher and self.teacher is not None:
            with torch.no_grad():
                teacher = project(self.teacher, inputs, places)
        return LossRows(inputs, places, chosen(labels, places + 1), columns, teacher)

    def evaluate(self, *_, **__) -> dict[str, float]:
        """Validation, means over tokens: `eval_loss` is the validation objective, or the cross-entropy without a teacher.

        Every process looks at all of it.
        """
        self.model.eval()
        loss = cross = smallest = tokens = 0.0
        loader = DataLoader(self.eval_dataset, self.args.eval_batch_size, collate_fn=self.collate_rows)
        with torch.no_grad():
            for batch in loader:
                with self.accelerator.autocast():
                    rows = self.rows(self._prepare_inputs(batch))
                    student, labels = project(self.model, rows.inputs, rows.places), cross_entropy(rows.labels)
                    cross += chunked(labels, student, None).item()
                    if rows.teacher:
                        objective = self.validation_objective(rows.labels, rows.columns)
                        loss += chunked(objective, student, rows.teacher).item()
                    if self.submodels:
                        submodel = self.submodels.projection(self.submodels.smallest)(rows.inputs, rows.places)
                        smallest += chunked(labels, submodel, None).item()
                tokens += len(rows.labels)
            metrics = {"eval_loss": cross / tokens}
            if rows.teacher:
                metrics = {"eval_loss": loss / tokens, "eval_cross_entropy": cross / tokens}
            if self.submodels:
                metrics["eval_smallest_cross_entropy"] = smallest / tokens
            if self.answer_score:
                metrics["eval_rouge_l"] = self.answer_score(self.accelerator.unwrap_model(self.model))
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
