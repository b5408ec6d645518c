"""The jobs of a study and what each reads, from the plan: what the drawing of the workflow and the lineage are made of."""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from colpipe.plan import Plan

# Rule → the folder that it makes, in the order of the work. The tests compare them with workflow/rules/.
OUTPUTS = {
    "fetch_model": "resources/models/{staged}",
    "fetch_dataset": "resources/data/{staged}",
    "train_tokenizer": "{results}/tokenizer",
    "prepare_corpus": "{results}/data/{corpus}",
    "prepare_instructions": "{results}/data/{instructions}",
    "pretrain": "{results}/pretrained/{start}",
    "sft": "{results}/sft/{start}",
    "bridge_answers": "{results}/answers/{ancestor}",
    "bridge": "{results}/bridges/{ancestor}",
    "order": "{results}/ordered/{ancestor}",
    "teacher_signal": "{results}/signals/{ancestor}/{teacher}",
    "distill": "{results}/chain/{ancestor}/{member}",
    "distill_desnet": "{results}/desnets/{ancestor}/{desnet}/{init}/0",
    "assemble": "{results}/desnets/{ancestor}/{desnet}/{init}/0",
    "recover": "{results}/desnets/{ancestor}/{desnet}/{init}/{budget}",
    "stack": "{results}/scores/stacks/{stack}",
    "evaluate": "{results}/scores/{model}",
    "leakage": "{results}/leakage",
    "report": "{results}",
}
ROOTS = ("fetch_model", "fetch_dataset")  # they read a source, no folder


class Made(NamedTuple):
    """One job.

    Attributes:
        rule: what makes the folder; empty where no rule of `OUTPUTS` does.
        parents: role → folder that it reads.
    """

    rule: str
    parents: Mapping[str, str]


def made(plan: "Plan") -> dict[str, Made]:
    """Folder → the job that makes it, for the report and all that it is made from."""
    found = {}
    for folder in plan.lineage(plan.results):
        rule, wildcards = maker(plan, folder)
        found[folder] = Made(rule, {} if not rule or rule in ROOTS else dict(plan.parents(rule, wildcards)))
    return found


def maker(plan: "Plan", folder: str) -> tuple[str, SimpleNamespace]:
    """The rule that makes a folder, and its wildcards; an empty name where none does."""
    for rule, pattern in OUTPUTS.items():
        match = re.fullmatch(_expression(plan.results, pattern), folder)
        if match and _serves(plan, rule, match.groupdict()):
            return rule, SimpleNamespace(**match.groupdict())
    return "", SimpleNamespace()


def _expression(results: str, pattern: str) -> str:
    words = pattern.replace("{results}", results).replace("{model}", "(?P<model>.+)")
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", words)


def _serves(plan: "Plan", rule: str, wildcards: Mapping[str, str]) -> bool:
    """Where two rules make folders of one pattern, which of them."""
    match rule:
        case "prepare_corpus":
            return wildcards["corpus"] in plan.study.corpora
        case "distill_desnet":
            return plan.study.initialisers[wildcards["init"]].kind == "distilled"
    return True


def rules_of(jobs: Mapping[str, Made]) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """(rule → number of its jobs, in the order of the work; pairs of a rule and one that reads what it makes)."""
    counts = {rule: 0 for rule in OUTPUTS}
    edges = set()
    for job in jobs.values():
        if job.rule:
            counts[job.rule] += 1
            edges |= {(jobs[parent].rule, job.rule) for parent in job.parents.values() if jobs[parent].rule}
    return {rule: count for rule, count in counts.items() if count}, edges
