"""Supervised fine-tuning with trl: for ancestors and members (SFT), the bridge (SeqKD, Eq. 2) and tasks."""

import warnings

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from colpipe.architectures.flops import FUSED_HEAD
from colpipe.config.stages import Training
from colpipe.data.tokens import IGNORE, Rows, account_for, require_batch
from colpipe.errors import ColpipeError
from colpipe.hf.counting import count_logits
from colpipe.hf.logits import CAP, HEADS, SCALING, transform_of
from colpipe.hf.models import disable_dropout, require_positions
from colpipe.hf.tokenizers import require_rows
from colpipe.jobs.job import Job
from colpipe.training.arguments import training_arguments
from colpipe.training.completion_loss import completion_loss
from colpipe.training.resumable import RemembersBatch, run_resumable

# Keys of config.json that say how logits are made of a head's values: those that trl's loss follows, whatever the model, and
# those of stock models that it does not know.
FOLLOWED = ("logit_scale", "output_multiplier", "lm_head_multiplier", SCALING, CAP)
NOT_FOLLOWED = ("logits_soft_cap", "output_logit_soft_cap", "logits_mup_width_multiplier")


class _Trainer(RemembersBatch, SFTTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, plain = inputs["labels"][:, 1:], self.accelerator.unwrap_model(model)
        predicts, on_cpu, head = labels != IGNORE, labels.device.type == "cpu", plain.get_output_embeddings()
        transform = transform_of(plain)
        if on_cpu and transform is not None and self.accelerator.num_processes == 1 and not self.args.bf16:
            given = {name: value for name, value in inputs.items() if name != "labels"}
            hidden = plain.base_model(**given, use_cache=False).last_hidden_state[:, :-1]
            tokens = predicts.sum() if num_items_in_batch is None else num_items_in_batch
            return completion_loss(hidden, head, labels, predicts, torch.as_tensor(tokens), transform)
        # trl's multiplies by the head's weight all positions on a CPU, those with loss elsewhere.
        positions = labels.numel() if on_cpu else int(predicts.sum())
        vocabulary, width = head.weight.shape
        count_logits(positions, vocabulary, width, FUSED_HEAD if torch.is_grad_enabled() else 1)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def fine_tune(
    job: Job,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    settings: Training,
    validation: list[dict] | None = None,
    label: str = "",
) -> PreTrainedModel:
    """Train on the completions of rows with trl's SFTTrainer; resume if this job was cut off before.

    Prompts and completions are tokenised apart, so that training sees exactly the prompt tokens that generation starts
    from; the loss is on the completion and its end-of-text. Where rows are packed (`runtime.packing`), a batch stays the
    rows that it is: filling sequences with as many rows as fit would make other batches of them.

    Args:
        validation: rows that are scored at `settings.evaluations` steps.
        label: names the run where one job has several (one a task).

    Raises:
        ColpipeError: no row, or less than a batch, is left without those that are longer than `settings.max_length`; a row
            is longer than the model can read; the tokenizer has ids that the embedding has no row for; the model makes its
            logits in a way that trl's loss does not.
    """
    _require_trl_logits(model)
    require_rows(tokenizer, model.get_input_embeddings().weight.shape[0], model.name_or_path)
    data = Rows(rows, tokenizer, settings.max_length, f"{label}train")
    held_out = None
    if validation and settings.evaluations:
        held_out = Rows(validation, tokenizer, settings.max_length, f"{label}validation")
    for each in (data, held_out):
        if each is not None:
            account_for(job, each)
            require_positions(model, max(len(row["input_ids"]) for row in each), f"{each.name}: the longest row")
    require_batch([data], len(data), settings.batch_size)
    state, packing = f"trainer-{label.strip(' :')}" if label else "trainer", job.runtime.packing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # trl turns checkpointing on under the name that is going away
        arguments = SFTConfig(
            **training_arguments(job, settings, state),
            gradient_checkpointing=None,
            padding_free=packing,
            max_length=None,  # Rows has left longer ones out
            dataset_kwargs={"skip_prepare_dataset": True},
        )
    if packing:
        arguments.include_num_input_tokens_seen = "all"  # without a mask, an end-of-text would pass for padding
    disable_dropout(model)
    trainer = _Trainer(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=_columns(data),
        eval_dataset=_columns(held_out) if held_out is not None else None,
    )
    return run_resumable(job, trainer, settings, label)


def _require_trl_logits(model: PreTrainedModel) -> None:
    """See that trl's loss makes logits as the model itself does.

    Raises:
        ColpipeError: names the key of config.json that the two treat differently.
    """
    config, name = model.config.get_text_config(), model.name_or_path or model.config.model_type
    for key in NOT_FOLLOWED:
        if (value := getattr(config, key, None)) is not None:
            raise ColpipeError(
                f"{name}: {key} is {value!r}, which changes its logits, and trl's loss does not follow it: a model_type "
                f"{config.model_type!r} cannot be fine-tuned here; leave it as it is, or take another"
            )
    if config.model_type in HEADS:
        for key in FOLLOWED:
            value = getattr(config, key, None)
            if key not in HEADS[config.model_type] and value is not None:
                raise ColpipeError(
                    f"{name}: {key} is {value!r}, which a model_type {config.model_type!r} does not look at, but trl's loss "
                    "does; take the key out of its config.json"
                )


def _columns(rows: Rows) -> datasets.Dataset:
    return datasets.Dataset.from_list(
        [{"input_ids": row["input_ids"].tolist(), "labels": row["labels"].tolist()} for row in rows]
    )
