"""What a job asks a machine for: accelerators, memory, time, from what it has to do (`workload.py`); nothing is loaded.

On the safe side: a margin over the estimated memory, three times the estimated time, at the rate that float32 training
reaches, not what the device's sheet says. A profile or `--set-resources` overrides each. They change no result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from colpipe.cost.formulas import REAL
from colpipe.cost.passes import PROCESS
from colpipe.cost.workload import work
from colpipe.plan import Plan
from colpipe.stage_settings import Training

BASE = 3_000_000_000  # bytes: Python, torch and its libraries, with an accelerator's
MARGIN = 1.3  # over the estimated memory of the models
RATES = {"cpu": 4e10, "cuda": 2e13, "npu": 2e13, "auto": 2e13}  # operations a second: of all threads, or of one device
LEAST, ENOUGH = 30, 720  # minutes: the shortest limit that is asked for; what is longer gets more devices
MOST = 8  # devices of a job, those of one node
PREPARING = {"train_tokenizer", "prepare_corpus", "prepare_instructions"}
LIGHT = {*PREPARING, "assemble", "leakage", "report", "exhibit", "publish"}


@dataclass(frozen=True)
class Needs:
    """Of one job."""

    accelerators: int
    memory_mb: int
    """main memory"""
    minutes: int


def needs_of_jobs(plan: Plan) -> Callable:
    """What the Snakefile puts under `resources`, by the name of the rule."""

    last: dict[tuple[str, str], Needs] = {}

    def of_job(rule: str, wildcards: object) -> Needs:
        """Worked out once where the resources of a job are asked for one after the other."""
        key = (rule, repr(wildcards))
        if key not in last:
            last.clear()
            last[key] = needs(plan, rule, wildcards)
        return last[key]

    def of(rule: str) -> dict[str, Callable]:
        fields = {"gpu": "accelerators", "mem_mb": "memory_mb", "runtime": "minutes"}
        return {
            resource: lambda wildcards, field=field: getattr(of_job(rule, wildcards), field)
            for resource, field in fields.items()
        }

    return of


def needs(plan: Plan, rule: str, wildcards: object) -> Needs:
    """Those of a job of a rule.

    Beside an accelerator, main memory holds the weights of its models twice: as they are read, and as they are saved.
    """
    done = work(plan, rule, wildcards)
    twice = 2 * REAL * (done.trained + done.read)
    if rule in LIGHT:
        return Needs(0, _megabytes(BASE + twice), 2 * LEAST)
    device, training = plan.study.runtime.device, _training(plan, rule, wildcards)
    minutes = done.flops / RATES[device] / 60
    if device == "cpu":
        return Needs(0, _megabytes(BASE + max(twice, MARGIN * (done.main_memory - PROCESS))), _limit(minutes))
    count = 1
    while training and minutes / count > ENOUGH and count < MOST and training.batch_size % (2 * count) == 0:
        count *= 2
    return Needs(count, _megabytes(BASE + twice), _limit(minutes / count))


def _megabytes(size: float) -> int:
    return ceil(size / 1e6)


def _limit(minutes: float) -> int:
    """Three times what is thought, because a job that has not ended by then is started again."""
    return LEAST + ceil(3 * minutes)


def _training(plan: Plan, rule: str, wildcards: object) -> Training | None:
    """Settings of a job that can train on several devices."""
    match rule:
        case "distill":
            return plan.study.distill_settings(wildcards.ancestor, wildcards.member)
        case "distill_desnet":
            return plan.study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
        case "recover":
            return plan.settings_of("recover", wildcards)
    return getattr(plan.study.stages, rule, None) if rule in ("sft", "bridge", "pretrain") else None
