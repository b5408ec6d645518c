"""Settings of a training as transformers' training arguments."""

import os

from colpipe.config.stages import Training
from colpipe.errors import ColpipeError
from colpipe.jobs.device import pick_device, require_precision
from colpipe.jobs.job import Job
from colpipe.training import sharding


def warmup_steps(warmup: float, steps: int) -> int:
    """Steps of warm-up, of so many: `warmup` is a share of them below 1, their number from 1 on.

    Raises:
        ColpipeError: they are more than there are.
    """
    if warmup > steps:
        raise ColpipeError(
            f"warmup: {warmup:g} steps are more than the {steps} of this training; use a share, such as 0.02"
        )
    return round(warmup * steps) if warmup < 1 else int(warmup)


def training_arguments(job: Job, settings: Training, state: str = "trainer") -> dict:
    """Keyword arguments of `TrainingArguments` or `SFTConfig`; micro-batch and accumulation are derived.

    Args:
        state: name of the folder of in-step states, within the job's state folder.

    Raises:
        ColpipeError: the device is missing or lacks the precision, or the processes cannot share the batch evenly.
    """
    device = pick_device(job.runtime.device)
    require_precision(device, settings.precision)
    processes = int(os.environ.get("WORLD_SIZE", 1))  # set by what starts several, before they know each other
    share, rest = divmod(settings.batch_size, processes)
    if rest:
        raise ColpipeError(f"batch_size {settings.batch_size} cannot be shared evenly by {processes} processes")
    micro = min(job.runtime.micro_batch or share, share)
    while share % micro:
        micro -= 1
    # From pinned memory, a batch travels while the device computes; accelerate fetches it one update ahead.
    travels = {} if device.type == "cpu" else {"accelerator_config": {"non_blocking": True}}
    return {
        **travels,
        **(sharding.ARGUMENTS if job.runtime.shard and processes > 1 else {}),
        "output_dir": str(job.state / state),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "max_steps": settings.steps or -1,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "warmup_steps": settings.warmup,  # perhaps a share: steps once there is a scheduler
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
        "log_level_replica": "passive",  # as the main process; left out, the others warn of something at every step
        "report_to": [],
    }
