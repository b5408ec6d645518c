"""Distillation of one student from one teacher: on the data's tokens, or on completions of the teacher or the student.

Sizes are global: they do not depend on the number of processes.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainingArguments

from colpipe.config.constants import COMPLETION_OBJECTIVES, SAMPLED_OBJECTIVES
from colpipe.config.stages import Distill
from colpipe.data.tokens import collate
from colpipe.hf.models import disable_dropout
from colpipe.jobs.job import Job
from colpipe.training.arguments import training_arguments
from colpipe.training.keep_best import keep_best, take_best
from colpipe.training.objectives import objective_by_name
from colpipe.training.resumable import run_resumable
from colpipe.training.rollout_trainer import RolloutTrainer
from colpipe.training.trainer import ObjectiveTrainer

if TYPE_CHECKING:  # plain chains do not depend on it
    from colpipe.training.elastic import Submodels


class DistillationData(NamedTuple):
    """What a student learns from."""

    items: Dataset | None
    """items with input_ids and labels; None where completions are sampled"""
    prompts: Sequence[torch.Tensor]
    """token ids of the prompts that are completed, where they are"""
    text: Dataset | None
    """blocks for the cross-entropy beside sampled completions, or None"""
    validation: Dataset | None
    """scored at `settings.evaluations` steps; None without any"""
    end_ids: Sequence[int]
    """ids of the tokens that end a text"""
    pad_id: int
    """id of the padding token"""


def distill(
    job: Job,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    settings: Distill,
    data: DistillationData,
    answer_score: Callable[[PreTrainedModel], float] | None = None,
    submodels: "Submodels | None" = None,
) -> tuple[PreTrainedModel, dict]:
    """Train a student; resume if this job was cut off before.

    Args:
        student: trained in place.
        teacher: frozen, of the same vocabulary; None where the data hold its cached log-probabilities.
        answer_score: Rouge-L of a model's answers to validation prompts, or None.
        submodels: smaller shapes inside the student that learn with it.

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
        "uses_teacher": settings.objective != "seqkd",
        "objective": objective_by_name(settings),
        "submodels": submodels,
        "submodel_objective": objective_by_name(settings, submodel=True),
        # Validation is on the data's tokens: the loss of what learns from them, for others the divergence.
        "validation_objective": None if settings.objective in COMPLETION_OBJECTIVES else objective_by_name(settings),
        "answer_score": answer_score,
        "eval_dataset": data.validation,
        "collate_rows": collate(data.pad_id),
    }
    if settings.objective in SAMPLED_OBJECTIVES:
        trainer = RolloutTrainer(job, settings, data.prompts, data.text, data.end_ids, **arguments)
    else:
        trainer = ObjectiveTrainer(train_dataset=data.items, **arguments)
    student = run_resumable(job, trainer, settings, callback=keep_best(job, trainer, settings))
    return student, take_best(job, student, settings)
