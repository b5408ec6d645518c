"""A study as data for the Snakefile: what every job waits for, is told, and is compared by (no torch here).

From a rule's row in the rule table come the files that Snakemake waits for, the flags on the command line, and the
fingerprints that decide about reruns.
"""

import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace as Wildcards

from colpipe.config.layout import Layout
from colpipe.config.needs import JobRuntime, needs_of
from colpipe.config.paper import paper
from colpipe.config.parts import reader_module
from colpipe.config.study import Study
from colpipe.cost.passes import Work
from colpipe.jobs import artifacts
from colpipe.jobs.code import code_version
from colpipe.pipeline import exhibits
from colpipe.pipeline.graph import PlannedJob, Settings, flatten, in_order, lineage, work_of
from colpipe.pipeline.model_inputs import Parents
from colpipe.pipeline.rules import RULES
from colpipe.pipeline.snakefile import one_of

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


class Plan(Layout):
    """What Snakemake asks about the jobs of a study.

    Args:
        code_version: version of a module's code.
        remote: whether a scheduler runs the jobs: they have what they asked for, and end when their time is over.
    """

    def __init__(self, study: Study, code_version: Callable[[str], str] = code_version, remote: bool = False):
        super().__init__(study)
        self.code_version, self.remote = code_version, remote
        self.runtime = study.runtime.model_dump_json()
        needs = {self.data(name): found for name, found in needs_of(study).items()}
        self.preparing = {
            folder: JobRuntime(**study.runtime.model_dump(), needs=found).model_dump_json()
            for folder, found in needs.items()
        }
        self._parents: dict[tuple[str, str], Parents] = {}

    # Targets, and what is there already.

    def manifests_of(self, kind: str) -> list[str]:
        """Manifests behind the named targets: `chain`, `desnets` (before recovery), `recovered`, `scores`, `paper`."""
        models = self.models
        chosen = {
            "chain": [path for path in models if path.startswith("chain/")],
            "desnets": [path for path, columns in models.items() if columns.get("tokens") == 0],
            "recovered": [path for path in models if path.startswith("desnets/")],
            "scores": [f"scores/{path}" for path in models],
            "paper": [f"paper/{name}" for name in paper() if exhibits.has(self, name)],
        }
        return [f"{self.results}/{path}/manifest.json" for path in chosen[kind]]

    def cards(self) -> list[str]:
        """The card of every DesNet, behind the target `published`."""
        return [f"{self.results}/published/{path}/README.md" for path in self.models if path.startswith("desnets/")]

    def check_finished(self) -> None:
        """Look over what is there already.

        Raises:
            ColpipeError: a file that a manifest names is gone.
        """
        for root in (Path(self.results), Path("resources")):
            for manifest in root.glob("**/" + artifacts.MANIFEST):
                artifacts.read_manifest(manifest.parent)

    # Jobs.

    def inputs_of(self, rule: str, wildcards: Wildcards | None = None) -> Parents:
        """Inputs of a job, worked out once: Snakemake asks several times for each of thousands."""
        key, parents = (rule, repr(wildcards)), RULES[rule].parents
        if key not in self._parents:
            self._parents[key] = parents(self, wildcards) if parents else {}
        return self._parents[key]

    def settings_of(self, rule: str, wildcards: Wildcards | None = None) -> Settings:
        """Settings of a job: one pydantic model, or some by name."""
        return RULES[rule].settings(self, wildcards)

    def parents(self, rule: str, wildcards: Wildcards | None = None) -> list[tuple[str, str]]:
        """(role, folder) of every input of a job, as its manifest records them."""
        return flatten(self.inputs_of(rule, wildcards))

    def work(self, rule: str, wildcards: Wildcards) -> Work:
        """What a job has to do; nothing that counts where no model is at work."""
        row, parents = RULES[rule], dict(self.parents(rule, wildcards))
        return work_of(row, self, wildcards, parents, self.settings_of(rule, wildcards) if row.work else None)

    def lineage(self, *folders: str) -> list[str]:
        """All folders that these descend from, and themselves: parents before their children, fetched ones too."""
        return list(lineage(RULES, self, *folders))

    def jobs(self, folders: Iterable[str] | None = None) -> list[PlannedJob]:
        """Every job that makes these folders, inputs first; of the whole study, where none are given."""
        if folders is None:
            folders = [folder for _, folder in self.parents("report")]
        return list(lineage(RULES, self, *folders).values())

    def work_by_job(self, folders: Iterable[str] | None = None) -> Iterator[tuple[PlannedJob, Work]]:
        """The same with what each job has to do, rule by rule in the order of the table."""
        for job in in_order(RULES, self.jobs(folders)):
            yield job, self.work(job.rule, job.wildcards)

    # What a rule says to Snakemake: functions of wildcards.

    def manifests(self, rule: str) -> Callable:
        """Input function: the manifest of every parent."""
        return lambda wildcards: [f"{folder}/manifest.json" for _, folder in self.parents(rule, wildcards)]

    def allowed(self, rule: str) -> dict[str, str]:
        """Wildcard constraints, of rules whose wildcards may not be any name."""
        allowed = RULES[rule].allowed
        return {name: one_of(names) for name, names in allowed(self).items()} if allowed else {}

    def params(self, rule: str, **others: object) -> dict[str, object]:
        """Params of a rule, which make its command line and decide about reruns.

        Args:
            others: more of them, or such as take the place of these.
        """
        row = RULES[rule]
        params = {
            "stage": row.stage or rule,
            "inputs": self.flags(rule),
            "contents": self.contents(rule),
            "settings": self.settings(rule),
            "seed": f"--seed {self.study.seed}",
            "code": self.code(rule),
            "where": self.where,
        }
        if row.kind == "fetch":  # shared by studies, whatever their seed
            own = {"contents": self.source_content(rule), "settings": self.source(rule)}
            params |= {"inputs": "", "seed": "", **own}
        if row.kind in ("accelerator", "data-parallel"):
            params["devices"] = self.devices(rule)
        return params | others

    def contents(self, rule: str) -> Callable:
        """Params function: the fingerprint of every parent. Snakemake compares it between runs, so a changed byte reruns
        exactly the consumers and a touched file reruns nothing."""
        return lambda wildcards: {name: artifacts.fingerprint(folder) for name, folder in self.parents(rule, wildcards)}

    def flags(self, rule: str) -> Callable:
        """Params function: the parents on the command line."""

        def build(wildcards) -> list[str]:
            words = []
            for flag, value in self.inputs_of(rule, wildcards).items():
                pairs = [f"{name}={folder}" for name, folder in value.items()] if isinstance(value, dict) else [value]
                words += [f"--{flag}", *pairs]
            return words

        return build

    def settings(self, rule: str) -> Callable:
        """Params function: the settings as JSON text. In a whole study, which reporting reads, the order means something."""
        sort_keys = rule not in ("report", "exhibit")
        return lambda wildcards: _json(self.settings_of(rule, wildcards), sort_keys)

    def where(self, wildcards, output) -> str:
        """Params function: output, work folder and runtime settings, of data also what the study needs of them. A param that
        looks at the output is never compared between runs, so moving or tuning these reruns nothing."""
        home = Path(output[0]).parent
        root = Path(self.results if home.is_relative_to(self.results) else "resources")
        words = ["--output", str(home), "--work", str(root / "work" / home.relative_to(root))]
        return shlex.join([*words, "--runtime", self.preparing.get(str(home), self.runtime)])

    def devices(self, rule: str) -> Callable:
        """Params function: what a job may use, for `colpipe.jobs.launch`. A param that looks at the resources is never
        compared between runs."""
        parallel = RULES[rule].kind == "data-parallel"

        def flags(wildcards, resources) -> str:
            # Slurm's gres are those of each node, its gpus those of all.
            on_each = int(str(resources.get("gres", "")).rpartition(":")[2] or 0)
            count = resources.get("gpu") or on_each * resources.get("nodes", 1)
            words = [f"--devices {count}"]
            if parallel and (count > 1 or self.remote):  # a scheduler may grant several nodes of one device, or of none
                words.append("--parallel")
            return " ".join([*words, *([f"--granted --minutes {resources.runtime}"] if self.remote else [])])

        return flags

    def code(self, rule: str) -> Callable:
        """Params function: the version of a stage's code, its module and every colpipe module that it uses."""
        return lambda wildcards: self.code_version(RULES[rule].module)

    def reading_code(self, rule: str) -> Callable:
        """Params function: that of a stage that reads a data set, and that of the data set's reader."""

        def versions(wildcards) -> list[str]:
            datasets = {folder: name for name, folder in self.datasets.items()}
            read = [datasets[folder] for _, folder in self.parents(rule, wildcards) if folder in datasets]
            readers = sorted({self.study.datasets[name].reader for name in read})
            return [self.code(rule)(wildcards), *(self.code_version(reader_module(reader)) for reader in readers)]

        return versions

    def source(self, rule: str) -> Callable:
        """Params function: the source of a staged model or data set, as JSON text."""
        return lambda wildcards: _json(self.sources[RULES[rule].output.format(staged=wildcards.staged)])

    def source_content(self, rule: str) -> Callable:
        """Params function: content of a local source, so that changing it is noticed; published ones are fixed by their
        version or revision."""

        def read(wildcards) -> str:
            path = self.sources[RULES[rule].output.format(staged=wildcards.staged)].path
            return artifacts.fingerprint(path) if path else "published"

        return read

    def built_paper_tables(self, _: object) -> dict[str, str]:
        """Params function: the paper's tables and figures that are there. The page shows them and does not ask for them."""
        folders = sorted(path.parent for path in Path(self.results).glob(f"paper/*/{artifacts.MANIFEST}"))
        return {folder.name: artifacts.fingerprint(folder) for folder in folders}


def _json(value: object, sort_keys: bool = True) -> str:
    """JSON text of settings: pydantic models, or plain mappings of them."""
    return json.dumps(value, sort_keys=sort_keys, default=lambda model: model.model_dump(mode="json"))
