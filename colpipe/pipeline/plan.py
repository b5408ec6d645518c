"""A study as data for the Snakefile: what every job waits for and is told (no torch here).

From a rule's row in the rule table come the files that Snakemake waits for and the command line. What has to be made
again is decided in `reruns.py`.
"""

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace as Wildcards

from colpipe.config.layout import Layout
from colpipe.config.needs import JobRuntime, needs_of
from colpipe.config.paper import paper
from colpipe.config.study import Study
from colpipe.cost.passes import Work
from colpipe.jobs import artifacts
from colpipe.pipeline import exhibits
from colpipe.pipeline.graph import PlannedJob, Settings, flatten, in_order, lineage, one_of, work_of
from colpipe.pipeline.model_inputs import Parents, fit_source, fitted_from
from colpipe.pipeline.rules import RULES

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
# No model runs in these.
PREPARING = ("fetch_model", "fetch_dataset", "train_tokenizer", "prepare_corpus", "prepare_instructions")


class Plan(Layout):
    """What Snakemake asks about the jobs of a study.

    Args:
        remote: whether a scheduler runs the jobs: they have what they asked for, and end when their time is over.
        place: as in `Layout`.
    """

    def __init__(self, study: Study, remote: bool = False, place: Callable[[str], str] = str):
        super().__init__(study, place)
        self.remote = remote
        self.runtime = study.runtime.model_dump_json()
        self.needs = {self.data(name): needs for name, needs in needs_of(study).items()}
        self.streams = Path(self.results) / "work" / "streams"
        self._parents: dict[tuple[str, str], Parents] = {}
        self._texts: dict[tuple[str, str], str] = {}

    @cached_property
    def _fitted_from(self) -> Counter[str]:
        return fitted_from(self)

    # Targets, and what is there already.

    def manifests_of(self, kind: str) -> list[str]:
        """Manifests behind the named targets: `prepared`, `chain`, `desnets` (before recovery), `recovered`, `scores`,
        `exported`, `paper`."""
        models, results = self.models, self.results
        match kind:
            case "prepared":
                folders = [job.folder for job in self.jobs() if job.rule in PREPARING]
            case "chain":
                folders = [f"{results}/{path}" for path in models if path.startswith("chain/")]
            case "desnets":
                folders = [f"{results}/{path}" for path, columns in models.items() if columns.get("tokens") == 0]
            case "recovered":
                folders = [f"{results}/{path}" for path in models if path.startswith("desnets/")]
            case "scores":
                folders = [f"{results}/scores/{path}" for path in models]
            case "exported":
                folders = [f"{results}/{path}" for path in self.exports]
            case _:
                folders = [f"{results}/paper/{name}" for name in paper() if exhibits.has(self, name)]
        return [self.declared(f"{folder}/{artifacts.MANIFEST}") for folder in folders]

    def cards(self, name: str | None = None, kind: str = "desnets") -> list[str]:
        """The card of every DesNet, behind the target `published`; or of one, or a member (`chain`), in all its versions."""
        models = [path for path in self.models if path.startswith(f"{kind}/") and name in (None, path.split("/")[2])]
        return [self.declared(f"{self.results}/published/{path}/README.md") for path in models]

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

    def settings_text(self, rule: str, wildcards: Wildcards | None = None) -> str:
        """The same as JSON text, written once. In a whole study, which reporting reads, the order means something."""
        key = (rule, repr(wildcards))
        if key not in self._texts:
            settings = (
                self.sources[self.folder(rule, wildcards)]
                if RULES[rule].kind == "fetch"
                else self.settings_of(rule, wildcards)
            )
            self._texts[key] = _json(settings, sort_keys=rule not in ("report", "exhibit"))
        return self._texts[key]

    def folder(self, rule: str, wildcards: Wildcards | None = None) -> str:
        """The folder that a job makes."""
        return RULES[rule].output.format(
            results=self.results, resources=self.resources, **vars(wildcards or Wildcards())
        )

    def parents(self, rule: str, wildcards: Wildcards | None = None) -> list[tuple[str, str]]:
        """(role, folder) of every input of a job, as its manifest records them."""
        return flatten(self.inputs_of(rule, wildcards))

    def reported(self, results: Path | None = None) -> list[tuple[str, str]]:
        """(role, folder) of all that the report shows: what it asks for, and the paper's tables and figures that are there.

        Args:
            results: where the results lie, if elsewhere.
        """
        built = self.built_paper_tables(results or Path(self.results))
        return [*self.parents("report"), *((f"paper.{name}", f"{self.results}/paper/{name}") for name in built)]

    def built_paper_tables(self, results: Path) -> list[str]:
        """The paper's tables and figures that were built, in its order; not those that the study no longer has."""
        built = [name for name in paper() if (results / "paper" / name / artifacts.MANIFEST).exists()]
        return [name for name in built if exhibits.has(self, name)]

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

    def manifests(self, rule: str, wildcards: Wildcards) -> list[tuple[str, str]]:
        """(folder, its manifest as rules declare it) of every parent; for the report, of all that it shows."""
        parents = self.reported() if rule == "report" else self.parents(rule, wildcards)
        return [(folder, self.declared(f"{folder}/{artifacts.MANIFEST}")) for _, folder in parents]

    def allowed(self, rule: str) -> dict[str, str]:
        """Wildcard constraints, of rules whose wildcards may not be any name."""
        allowed = RULES[rule].allowed
        return {name: one_of(names) for name, names in allowed(self).items()} if allowed else {}

    def params(self, rule: str, inputs: bool = True) -> dict[str, Callable]:
        """Params of a rule: one, its command line but for the log, because Snakemake works each out for every job.

        It looks at the output, so that Snakemake does not compare it between runs: what it remembers decides nothing.

        Args:
            inputs: whether the command line names the parents; the report has too many.
        """
        row = RULES[rule]
        # What is fetched is shared by studies, whatever their seed.
        seed = [] if row.kind == "fetch" else ["--seed", str(self.study.seed)]

        def command(wildcards: Wildcards, output: Sequence[str], resources) -> str:
            devices = self.devices(rule, resources) if row.kind in ("accelerator", "data-parallel") else []
            parents = self.flags(rule, wildcards) if inputs else []
            settings = ["--settings", shlex.quote(self.settings_text(rule, wildcards))]
            where = self.where(rule, wildcards, output)
            return " ".join([row.stage or rule, *devices, *parents, *settings, *seed, where])

        return {"command": command}

    def flags(self, rule: str, wildcards: Wildcards) -> list[str]:
        """The parents on the command line."""
        words = []
        for flag, value in self.inputs_of(rule, wildcards).items():
            pairs = [f"{name}={folder}" for name, folder in value.items()] if isinstance(value, dict) else [value]
            words += [f"--{flag}", *pairs]
        return words

    def where(self, rule: str, wildcards: Wildcards, output: Sequence[str]) -> str:
        """Output, work folder and runtime settings; of data also what the study needs of them, of a fit where its source's
        streams are, if others use them too."""
        home = Path(output[0]).parent
        runtime, needs = self.runtime, self.needs.get(str(home), [])
        fits = "fit" in self.settings_of(rule, wildcards) if rule in ("distill", "assemble") else False
        streams = self.streams if fits and self._fitted_from[fit_source(self.inputs_of(rule, wildcards))] > 1 else None
        if needs or streams:
            runtime = JobRuntime(**self.study.runtime.model_dump(), needs=needs, streams=streams).model_dump_json()
        return shlex.join(["--output", str(home), "--work", str(self.work_folder(home)), "--runtime", runtime])

    def work_folder(self, home: Path) -> Path:
        """Where a job that makes a folder keeps its resumable state and its logs."""
        root = Path(self.results if home.is_relative_to(self.results) else self.resources)
        return root / "work" / home.relative_to(root)

    def devices(self, rule: str, resources) -> list[str]:
        """What a job may use, for `colpipe.jobs.launch`."""
        # Slurm's gres are those of each node, its gpus those of all.
        on_each = int(str(resources.get("gres", "")).rpartition(":")[2] or 0)
        count = resources.get("gpu") or on_each * resources.get("nodes", 1)
        words = [f"--devices {count}"]
        # A scheduler may grant several nodes of one device, or of none.
        if RULES[rule].kind == "data-parallel" and (count > 1 or self.remote):
            words.append("--parallel")
        return [*words, *([f"--granted --minutes {resources.runtime}"] if self.remote else [])]


def _json(value: object, sort_keys: bool = True) -> str:
    """JSON text of settings: pydantic models, or plain mappings of them."""
    return json.dumps(value, sort_keys=sort_keys, default=lambda model: model.model_dump(mode="json"))
