"""A study as data for the Snakefile: what every job waits for, is told, and is compared by (no torch here).

From the inputs of a rule (`colpipe/stage_inputs.py`) come the files that Snakemake waits for, the flags on the command
line, and the fingerprints that decide about reruns.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from colpipe import checkpoint, exhibits, stage_inputs
from colpipe.folders import Folders
from colpipe.jobs import ROOTS, maker
from colpipe.settings import reader_module
from colpipe.stage_inputs import Parents
from colpipe.study import Study


class Plan(Folders):
    """What Snakemake asks about the jobs of a study."""

    def __init__(self, study: Study, code_version: Callable[[str], str] = checkpoint.code_version):
        super().__init__(study)
        self.code_version = code_version
        self.runtime = study.runtime.model_dump_json()
        self._known: dict[tuple[str, str], Parents] = {}

    def manifests_of(self, kind: str) -> list[str]:
        """Manifests behind the named targets: `chain`, `desnets` (before recovery), `recovered`, `scores`, `paper`."""
        models = self.models
        chosen = {
            "chain": [path for path in models if path.startswith("chain/")],
            "desnets": [path for path, columns in models.items() if columns.get("tokens") == 0],
            "recovered": [path for path in models if path.startswith("desnets/")],
            "scores": [f"scores/{path}" for path in models],
            "paper": [f"paper/{name}" for name in exhibits.paper() if exhibits.has(self, name)],
        }
        return [f"{self.results}/{path}/manifest.json" for path in chosen[kind]]

    def cards(self) -> list[str]:
        """The card of every DesNet, behind the target `published`."""
        return [f"{self.results}/published/{path}/README.md" for path in self.models if path.startswith("desnets/")]

    def lineage(self, *folders: str) -> list[str]:
        """All folders that these descend from, and themselves: parents before their children, fetched ones too."""
        found: dict[str, None] = {}
        waiting = list(folders)
        while waiting:
            rule, wildcards = maker(self, waiting[-1])
            parents = self.parents(rule, wildcards) if rule and rule not in ROOTS else []
            before = [parent for _, parent in parents if parent not in found]
            if not before:
                found[waiting.pop()] = None
            waiting += before
        return list(found)

    def check_finished(self) -> None:
        """Look over what is there already.

        Raises:
            ColpipeError: a file that a manifest names is gone.
        """
        for root in (Path(self.results), Path("resources")):
            for manifest in root.glob("**/" + checkpoint.MANIFEST):
                checkpoint.read_manifest(manifest.parent)

    def inputs_of(self, rule: str, wildcards: object = None) -> Parents:
        """Inputs of a job, worked out once: Snakemake asks several times for each of thousands."""
        key = (rule, repr(wildcards))
        if key not in self._known:
            self._known[key] = getattr(stage_inputs, f"{rule}_parents")(self, wildcards)
        return self._known[key]

    def settings_of(self, rule: str, wildcards: object = None) -> BaseModel | dict:
        """Settings of a job: one pydantic model, or some by name."""
        return getattr(stage_inputs, f"{rule}_settings")(self, wildcards)

    def parents(self, rule: str, wildcards: object = None) -> list[tuple[str, str]]:
        """(name, folder) of every input of a job, as its manifest records them."""
        found = []
        for flag, value in self.inputs_of(rule, wildcards).items():
            if isinstance(value, dict):
                found += [(f"{flag}.{name}", folder) for name, folder in value.items()]
            else:
                found.append((flag, value))
        return found

    def manifests(self, rule: str):
        """Input function: the manifest of every parent."""
        return lambda wildcards: [f"{folder}/manifest.json" for _, folder in self.parents(rule, wildcards)]

    def contents(self, rule: str):
        """Params function: the fingerprint of every parent. Snakemake compares it between runs, so a changed byte reruns
        exactly the consumers and a touched file reruns nothing."""

        return lambda wildcards: {
            name: checkpoint.fingerprint(folder) for name, folder in self.parents(rule, wildcards)
        }

    def flags(self, rule: str):
        """Params function: the parents on the command line."""

        def build(wildcards) -> list[str]:
            words = []
            for flag, value in self.inputs_of(rule, wildcards).items():
                pairs = [f"{name}={folder}" for name, folder in value.items()] if isinstance(value, dict) else [value]
                words += [f"--{flag}", *pairs]
            return words

        return build

    def settings(self, rule: str):
        """Params function: the settings as JSON text. In a whole study, which reporting reads, the order means something."""
        sort_keys = rule not in ("report", "exhibit")
        return lambda wildcards: _json(self.settings_of(rule, wildcards), sort_keys)

    def where(self, wildcards, output) -> str:
        """Params function: output, work folder and runtime settings. A param that looks at the output is never compared
        between runs, so moving or tuning these reruns nothing."""
        home = Path(output[0]).parent
        root = Path(self.results if home.is_relative_to(self.results) else "resources")
        words = ["--output", str(home), "--work", str(root / "work" / home.relative_to(root))]
        return shlex.join([*words, "--runtime", self.runtime])

    def code(self, rule: str):
        """Params function: the version of a stage's code, its module and every colpipe module that it uses."""
        return lambda wildcards: self.code_version(f"colpipe.stages.{rule}")

    def reading_code(self, rule: str):
        """Params function: that of a stage that reads a data set, and that of the data set's reader."""

        def versions(wildcards) -> list[str]:
            datasets = {folder: name for name, folder in self.datasets.items()}
            read = [datasets[folder] for _, folder in self.parents(rule, wildcards) if folder in datasets]
            readers = sorted({self.study.datasets[name].reader for name in read})
            return [self.code(rule)(wildcards), *(self.code_version(reader_module(reader)) for reader in readers)]

        return versions

    def source(self, kind: str):
        """Params function: the source of a staged model or data set, as JSON text."""
        return lambda wildcards: _json(self.sources[f"resources/{kind}/{wildcards.staged}"])

    def source_content(self, kind: str):
        """Params function: content of a local source, so that changing it is noticed; published ones are fixed by their
        version or revision."""

        def read(wildcards) -> str:
            path = self.sources[f"resources/{kind}/{wildcards.staged}"].path
            return checkpoint.fingerprint(path) if path else "published"

        return read

    def built_exhibits(self, _: object) -> dict[str, str]:
        """Params function: the exhibits of the paper that are there. The page shows them and does not ask for them."""
        folders = sorted(path.parent for path in Path(self.results).glob(f"paper/*/{checkpoint.MANIFEST}"))
        return {folder.name: checkpoint.fingerprint(folder) for folder in folders}


def _json(value: object, sort_keys: bool = True) -> str:
    """JSON text of settings: pydantic models, or plain mappings of them."""
    return json.dumps(value, sort_keys=sort_keys, default=lambda model: model.model_dump(mode="json"))
