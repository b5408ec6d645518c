"""Many sizes by a chain, by distilling each, by pre-training each: what they cost (Figure 1 of the paper; no torch here)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from colpipe.config.parts import tokens_label
from colpipe.config.stages import Pretrain
from colpipe.config.study import Study
from colpipe.cost.inputs import EXACT, least_sure, model_in, of_shape
from colpipe.cost.passes import Work, distillation, pretraining
from colpipe.jobs.usage import read_account
from colpipe.pipeline.graph import PlannedJob
from colpipe.pipeline.plan import Plan

SIZES = (1, 10, 100)  # beside the number of DesNets that the study has


@dataclass(frozen=True)
class SizesCost:
    """FLOPs, or device-seconds; None where a study does not say how, or has not done it."""

    once: float
    """the chain, with what it is made from; assembling a size from it costs nothing beside it"""
    size: float | None
    """recovery of each size on `recovered` tokens"""
    origin: float
    """the teacher of those that are distilled by themselves"""
    distilled: float | None
    pretrained: float | None
    recovered: int
    """tokens of the smallest recovery that the study has; 0 where it has none"""
    scratch: str
    """what the pre-training of a size of its own is, in words"""
    means: str
    """which DesNets a size stands for, in words"""
    bound: str = EXACT

    def rows(self, desnets: int) -> list[dict[str, float]]:
        """Column → value for some numbers of sizes, that of the study's DesNets among them."""
        found = []
        for count in sorted({*SIZES, desnets}):
            row = {"sizes": count, "chain": self.once}
            if self.size is not None:
                row[f"chain, + {tokens_label(self.recovered)} each"] = self.once + count * self.size
            if self.distilled is not None:
                row["each distilled"] = self.origin + count * self.distilled
                row["each distilled / chain"] = row["each distilled"] / self.once
            if self.pretrained is not None:
                row["each pre-trained"] = count * self.pretrained
                row["each pre-trained / chain"] = row["each pre-trained"] / self.once
            found.append(row)
        return found


def estimate_sizes(plan: Plan) -> SizesCost | None:
    """FLOPs, of the mean of the study's DesNets; None where it has none."""
    study = plan.study
    if not study.desnets:
        return None
    models = [of_shape(study.architecture, desnet.shape) for desnet in study.desnets.values()]
    ancestor, members, origin = _chain(plan)
    chain, before = ([work for _, work in plan.work_by_job(folders)] for folders in (members, [origin]))
    teacher, settings = model_in(plan, origin), study.desnet_distill_settings(ancestor)
    distilled = [distillation(plan, model, teacher, settings) for model in models]
    budget, recovered, pretrained, scratch = _smallest(study), [], [], ""
    if budget:
        recover = study.stages.recover.model_copy(update={"tokens": budget})
        recovered = [pretraining(plan, model, recover) for model in models]
    if pretrain := study.stages.pretrain or (_from_scratch(study) if budget else None):
        pretrained = [pretraining(plan, model, pretrain) for model in models]
        tokens = f"{tokens_label(pretrain.tokens)} tokens" if pretrain.tokens else "the whole corpus"
        scratch = f"{pretrain.epochs:g} × {tokens}"
    return SizesCost(
        once=_flops(chain),
        size=_flops(recovered) / len(models) if recovered else None,
        origin=_flops(before),
        distilled=_flops(distilled) / len(models),
        pretrained=_flops(pretrained) / len(models) if pretrained else None,
        recovered=budget,
        scratch=scratch,
        means="the mean of the study's DesNets",
        bound=least_sure(*(work.bound for work in (*chain, *distilled, *recovered, *pretrained))),
    )


def recorded_sizes(plan: Plan, home: Path = Path()) -> SizesCost | None:
    """Device-seconds of the jobs where models are at work, as they recorded them; None where the chain is not finished, or
    no DesNet was made by two methods.

    Recoveries of the smallest budget, random models of the largest; of DesNets that were made by all methods that the study
    has finished.

    Args:
        home: working directory of the study.
    """
    _, members, origin = _chain(plan)
    chain, before = (_seconds(home, plan.lineage(*folders)) for folders in (members, [origin]))
    seconds_of: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for job in plan.jobs():
        if (method := _method(plan, job)) and (run := read_account(home / job.folder)):
            seconds_of[method][job.wildcards.desnet].append(run["device_seconds"])
    common = set.intersection(*map(set, seconds_of.values())) if len(seconds_of) > 1 else set()
    if chain is None or before is None or not common:
        return None
    means = {method: fmean(fmean(by[desnet]) for desnet in common) for method, by in seconds_of.items()}
    most = max(plan.study.budgets)
    return SizesCost(
        once=chain,
        size=means.get("recovered"),
        origin=before,
        distilled=means.get("distilled"),
        pretrained=means.get("pretrained"),
        recovered=_smallest(plan.study),
        scratch=f"a random one on {tokens_label(most)} tokens",
        means=" and ".join(name for name in plan.study.desnets if name in common),
    )


def _chain(plan: Plan) -> tuple[str, list[str], str]:
    """(ancestor, folders of the members of its chain, folder of what it descends from) of the study's first ancestor."""
    ancestor = next(iter(plan.study.ancestors))
    return ancestor, [plan.teacher(ancestor, name) for name in plan.study.members(ancestor)], plan.origin(ancestor)


def _method(plan: Plan, job: PlannedJob) -> str:
    """How a job makes a size; empty where it does not, or for another budget than those that are compared."""
    if job.rule == "distill_desnet":
        return "distilled"
    if job.rule != "recover":
        return ""
    random = plan.study.initialisers[job.wildcards.init].kind == "rand"
    compared = max(plan.study.budgets) if random else _smallest(plan.study)
    method = "pretrained" if random else "recovered"
    return method if plan.budgets[job.wildcards.budget] == compared else ""


def _seconds(home: Path, folders: Iterable[str]) -> float | None:
    """Of the jobs of these folders at which models work; None where one has no account."""
    accounts = [read_account(home / folder) for folder in folders]
    if None in accounts:
        return None
    return sum(run["device_seconds"] for run in accounts if run["flops"])


def _smallest(study: Study) -> int:
    return min(filter(None, study.budgets), default=0)


def _from_scratch(study: Study) -> Pretrain:
    """What random DesNets are trained on at most, in a study that pre-trains nothing else."""
    return study.stages.recover.model_copy(update={"tokens": max(study.budgets)})


def _flops(works: Iterable[Work]) -> float:
    return sum(work.flops for work in works)
