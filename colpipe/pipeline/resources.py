"""What a job asks a scheduler for: accelerators, memory, time, from what it has to do; nothing is loaded (no torch here).

On the safe side: a margin over the estimated memory, three times the estimated time, at the rate that float32 training
reaches, not what the device's sheet says. A profile or `--set-resources` overrides each. They change no result.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import ceil
from types import SimpleNamespace as Wildcards
from typing import Any

from colpipe.architectures.flops import BYTES, REAL
from colpipe.config.stages import Training
from colpipe.cost.passes import PROCESS
from colpipe.errors import ColpipeError
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.rules import RULES

BASE = 3_000_000_000  # bytes: Python, torch and its libraries, with an accelerator's
MARGIN = 1.3  # over the estimated memory of the models
RATES = {"cpu": 4e10, "cuda": 2e13, "npu": 2e13, "auto": 2e13}  # FLOP/s: of all threads, or of one device
FIELDS = {"gpu": "accelerators", "mem_mb": "memory_mb", "runtime": "minutes"}  # what Snakemake calls a job's resources
LEAST, ENOUGH = 30, 720  # minutes: the shortest limit that is asked for; what is longer gets more devices
MOST = 8  # devices of a job, those of one node


@dataclass(frozen=True)
class Resources:
    """Of one job."""

    accelerators: int
    memory_mb: int
    """main memory"""
    minutes: int


def resources_of_jobs(
    plan: Plan, site: Mapping[str, str] | None = None, asked: Collection[str] = tuple(FIELDS)
) -> Callable[[str], dict[str, Any]]:
    """What the rules say under `resources`, by the name of the rule.

    Args:
        site: what a profile says of its cluster, under `default-resources`: `light_partition`, where Slurm runs the jobs
            that need no accelerator; `accelerator_gres`, what accelerators are called where they are no `gpu` to it.
        asked: those of `FIELDS` that anything asks for. Snakemake is spared working out the others for thousands of jobs.
    """
    site = site or {}
    last: dict[tuple[str, str], Resources] = {}

    def of_job(rule: str, wildcards: Wildcards) -> Resources:
        """Worked out once where the resources of a job are asked for one after the other."""
        key = (rule, repr(wildcards))
        if key not in last:
            last.clear()
            last[key] = resources_of_job(plan, rule, wildcards)
        return last[key]

    def of(rule: str) -> dict[str, Any]:
        resources: dict[str, Any] = {"gpu": 0} | {
            name: lambda wildcards, field=field: getattr(of_job(rule, wildcards), field)
            for name, field in FIELDS.items()
            if name in asked
        }
        if RULES[rule].kind == "light":
            return resources | ({"slurm_partition": site["light_partition"]} if "light_partition" in site else {})
        if "accelerator_gres" in site:
            gres = site["accelerator_gres"]
            resources |= {"gpu": 0, "gres": lambda wildcards: f"{gres}:{max(1, of_job(rule, wildcards).accelerators)}"}
        return resources

    return of


def resources_of_job(plan: Plan, rule: str, wildcards: Wildcards) -> Resources:
    """Those of one job of a rule.

    Beside an accelerator, main memory holds the weights of its models twice: as they are read, and as they are saved.
    """
    work, kind = plan.work(rule, wildcards), RULES[rule].kind
    twice = 2 * (REAL * work.trained + BYTES[work.precision] * work.read)
    held = max(twice, MARGIN * (work.main_memory - PROCESS))  # on a CPU
    if kind == "light":
        return Resources(0, _megabytes(BASE + held), max(2 * LEAST, _limit(work.flops / RATES["cpu"] / 60)))
    device = plan.study.runtime.device
    minutes = work.flops / RATES[device] / 60
    if device == "cpu":
        return Resources(0, _megabytes(BASE + held), _limit(minutes))
    count = 1
    if kind == "data-parallel" and work.trained:
        batch_size = _training(rule, plan.settings_of(rule, wildcards)).batch_size
        while minutes / count > ENOUGH and count < MOST and batch_size % (2 * count) == 0:
            count *= 2
    return Resources(count, _megabytes(BASE + twice), _limit(minutes / count))


def _megabytes(size: float) -> int:
    return ceil(size / 1e6)


def _limit(minutes: float) -> int:
    """Three times the estimate, because a job that has not ended by then is started again."""
    return LEAST + ceil(3 * minutes)


def _training(rule: str, settings) -> Training:
    """The training among the settings of a data-parallel stage."""
    training = settings if isinstance(settings, Training) else dict(settings).get("training")
    if not isinstance(training, Training):
        raise ColpipeError(
            f"rule {rule}: its kind is data-parallel, but its settings have no training: give a Training, or a mapping with "
            "one under training"
        )
    return training
