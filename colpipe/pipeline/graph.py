"""The jobs of a study as a graph: which rule makes a folder, and all that it descends from (no torch here).

Everything here takes the rule table as an argument; `rules.py` has it.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace as Wildcards
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from colpipe.config.layout import Layout
from colpipe.cost.passes import Work
from colpipe.cost.workload import parameters_read
from colpipe.jobs.artifacts import MANIFEST
from colpipe.pipeline.model_inputs import Parents

Settings = BaseModel | dict


@dataclass(frozen=True)
class Rule:
    """One row of the rule table.

    Attributes:
        name: of the rule in workflow/rules/.
        output: folder that a job makes, with its wildcards.
        kind: `fetch` reads a source, no folder, on the machine with a network; `light` asks for no accelerator;
            `accelerator` uses one; `data-parallel` trains on several.
        parents, settings: what a job reads and with which settings, from the layout and its wildcards.
        work: what it does, for estimates and for what it asks a machine for: from the layout, its wildcards, its parents
            (role → folder) and its settings. None where no model is at work.
        stage: module of `colpipe/stages/` that it runs; the rule's name where it is left out.
        allowed: wildcard → the names that it may have, where two rules make folders of one pattern.
        file: in the folder, that Snakemake waits for.
    """

    name: str
    output: str
    kind: Literal["fetch", "light", "accelerator", "data-parallel"]
    parents: Callable[[Layout, Wildcards], Parents] | None = None
    settings: Callable[[Layout, Wildcards], Settings] | None = None
    work: Callable[[Layout, Wildcards, Mapping[str, str], Any], Work] | None = None
    stage: str = ""
    allowed: Callable[[Layout], Mapping[str, Iterable[str]]] | None = None
    file: str = MANIFEST

    @property
    def module(self) -> str:
        """Of the stage."""
        return f"colpipe.stages.{self.stage or self.name}"


Rules = Mapping[str, Rule]


class PlannedJob(NamedTuple):
    """A job of the study.

    Attributes:
        rule: name of the rule that makes the folder; empty where none does.
        parents: role → folder that it reads.
    """

    rule: str
    wildcards: Wildcards
    folder: str
    parents: Mapping[str, str]


def flatten(parents: Parents) -> list[tuple[str, str]]:
    """(role, folder) of every input of a job, as its manifest records them."""
    pairs = []
    for flag, value in parents.items():
        if isinstance(value, dict):
            pairs += [(f"{flag}.{name}", folder) for name, folder in value.items()]
        else:
            pairs.append((flag, value))
    return pairs


_found: WeakKeyDictionary[Layout, dict[str, PlannedJob]] = WeakKeyDictionary()


def find_job(rules: Rules, layout: Layout, folder: str) -> PlannedJob:
    """The job that makes a folder; looked for once, because lineages share most of their folders."""
    found = _found.setdefault(layout, {})
    if folder not in found:
        found[folder] = _find_job(rules, layout, folder)
    return found[folder]


def _find_job(rules: Rules, layout: Layout, folder: str) -> PlannedJob:
    for rule in rules.values():
        match = re.fullmatch(_expression(rule.output, layout.results, layout.resources), folder)
        if match and _allows(rule, layout, match.groupdict()):
            wildcards = Wildcards(**match.groupdict())
            parents = dict(flatten(rule.parents(layout, wildcards))) if rule.parents else {}
            return PlannedJob(rule.name, wildcards, folder, parents)
    return PlannedJob("", Wildcards(), folder, {})


@cache
def _expression(pattern: str, results: str, resources: str) -> str:
    words = pattern.replace("{results}", results).replace("{resources}", resources)
    words = words.replace("{model}", "(?P<model>.+)")
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", words)


def _allows(rule: Rule, layout: Layout, wildcards: Mapping[str, str]) -> bool:
    """Where two rules make folders of one pattern, whether it is this one."""
    allowed = rule.allowed(layout) if rule.allowed else {}
    return all(wildcards[name] in names for name, names in allowed.items())


def one_of(names: Iterable[str]) -> str:
    """A wildcard constraint that only these names meet."""
    return "|".join(map(re.escape, names)) or "(?!)"


def lineage(rules: Rules, layout: Layout, *folders: str, without: Collection[str] = ()) -> dict[str, PlannedJob]:
    """Folder → job of all that these folders descend from, and of themselves: parents before their children.

    Args:
        without: roles of parents that are not followed.
    """
    jobs: dict[str, PlannedJob] = {}
    waiting = list(folders)
    while waiting:
        job = find_job(rules, layout, waiting[-1])
        followed = [parent for role, parent in job.parents.items() if role not in without]
        missing = [parent for parent in followed if parent not in jobs]
        if not missing:
            jobs[waiting.pop()] = job
        waiting += missing
    return jobs


def in_order(rules: Rules, jobs: Iterable[PlannedJob]) -> list[PlannedJob]:
    """Jobs rule by rule, in the order of the table."""
    order = list(rules)
    return sorted(jobs, key=lambda job: order.index(job.rule))


def work_of(rule: Rule, layout: Layout, wildcards: Wildcards, parents: Mapping[str, str], settings: Any) -> Work:
    """What a job has to do: that of its models, or reading those of its parents where it does not train."""
    work = rule.work(layout, wildcards, parents, settings) if rule.work else Work()
    return work if work.trained else replace(work, read=parameters_read(layout, parents))


def count_by_rule(rules: Rules, jobs: Mapping[str, PlannedJob]) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """(rule → number of its jobs, in the order of the table; pairs of a rule and one that reads what it makes)."""
    counts = dict.fromkeys(rules, 0)
    edges = set()
    for job in jobs.values():
        if job.rule:
            counts[job.rule] += 1
            edges |= {(jobs[parent].rule, job.rule) for parent in job.parents.values() if jobs[parent].rule}
    return {rule: count for rule, count in counts.items() if count}, edges
