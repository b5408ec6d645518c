"""What has to be made again, by content alone: what results were made of against what the study asks for (no torch here).

Every manifest says which settings, seed, code and parents its result was made of. A result is valid as long as these are
what the study asks for now and its parents are valid too; whatever else is remembered, lost, copied or touched plays no
part.
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from colpipe.data.sources import content_of, relink
from colpipe.jobs import artifacts
from colpipe.jobs.job import RECORD, made_from
from colpipe.pipeline.graph import PlannedJob, find_job, lineage
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.rules import RULES

SHOWN = 3  # changed settings that are told of one result


def find_manifests(plan: Plan) -> tuple[dict[str, dict], list[Path]]:
    """Look over what is there already.

    Returns:
        Folder → manifest of every finished result, and the folders whose manifest waits in `artifacts.SUPERSEDED`.

    Raises:
        ColpipeError: a file that a manifest names is gone, or a manifest is damaged.
    """
    finished, superseded = {}, []
    places = [(folder, set(files)) for folder, files in _folders(plan.results)]
    known = _lineage(plan)
    for folder, source in plan.sources.items():
        if os.path.isdir(folder):
            relink(source, Path(folder))
            places.append((folder, set(os.listdir(folder))))
    for folder, files in places:
        if artifacts.SUPERSEDED in files:
            superseded.append(Path(folder))
        if artifacts.MANIFEST in files and _concerns(plan, known, folder):
            finished[folder] = artifacts.read_manifest(folder)
    return finished, superseded


def _lineage(plan: Plan) -> Collection[str]:
    """Folders of all models of the study, of their scores, and of what these are made of."""
    folders = [f"{plan.results}/{place}{path}" for path in plan.models for place in ("", "scores/")]
    return lineage(RULES, plan, *folders)


def _concerns(plan: Plan, known: Collection[str], folder: str) -> bool:
    """Whether a folder of the results is one of the study as it is now, not of a model that it once had."""
    path = folder.removeprefix(f"{plan.results}/")
    return not path.startswith(("chain/", "desnets/", "scores/")) or folder in known


def _folders(results: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder of the results, linked ones too, with the names of its files; not those of work and logs."""
    seen = set()
    for folder, folders, files in os.walk(results, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden = {name for name in folders if name.startswith(".")}
        folders[:] = [
            name for name in folders if name not in (hidden if folder != results else hidden | {"work", "logs"})
        ]
        yield folder, files


class Reruns:
    """Which results of a study have to be made again, and why; each is looked at once.

    Args:
        finished: folder → manifest, of what is there.
        is_forced: whether a job, by its rule and folder, has to run anyway.

    Attributes:
        compare_code: whether a result is made again because code has changed.
    """

    def __init__(
        self,
        plan: Plan,
        finished: Mapping[str, dict],
        is_forced: Callable[[str, str], bool] = lambda rule, folder: False,
    ):
        self.plan, self.finished, self.is_forced = plan, finished, is_forced
        self.compare_code = True
        self.reasons: dict[str, str] = {}
        """folder → why it has to be made again; empty where nothing is there, or only a parent is made again"""
        self._stale: dict[str, bool] = {}
        self._contents: dict[str, str] = {}

    def is_stale(self, folder: str) -> bool:
        """Whether a result has to be made again, or for the first time."""
        if folder not in self._stale:
            job = find_job(RULES, self.plan, folder)
            self._stale[folder] = bool(job.rule) and self._has_to_run(job)
        return self._stale[folder]

    def _has_to_run(self, job: PlannedJob) -> bool:
        parents = dict(self.plan.reported()) if job.rule == "report" else job.parents
        followed = [self.is_stale(parent) for parent in parents.values()]  # all of them: each has its reason
        if any(followed) or self.is_forced(job.rule, job.folder):
            return True
        manifest = self._recorded(job)
        if manifest is None:
            return True
        difference = next(self._differences(job, parents, manifest), None)
        if difference:
            self.reasons[job.folder] = difference
        return difference is not None

    def _recorded(self, job: PlannedJob) -> dict | None:
        """What is recorded of a result; None where it is not there."""
        if RULES[job.rule].file == artifacts.MANIFEST:
            return self.finished.get(job.folder)
        try:
            record = json.loads((self.plan.work_folder(Path(job.folder)) / RECORD).read_text())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else None

    def _differences(self, job: PlannedJob, parents: Mapping[str, str], manifest: Mapping) -> Iterator[str]:
        """In what a result differs from what the study asks for."""
        row = RULES[job.rule]
        asked = json.loads(self.plan.settings_text(job.rule, job.wildcards))
        recorded, wanted = manifest.get("made_from"), made_from(row.module, asked)
        if not (isinstance(recorded, dict) and {"stage", "settings", "seed", "parents"} <= manifest.keys()):
            yield "an earlier version of colpipe made it, which did not record what it was made of"
            return
        if manifest["stage"] != (row.stage or row.name):
            yield f"the stage {manifest['stage']} made it"
        if recorded["settings"] != wanted["settings"]:
            yield "; ".join(changed_settings(manifest["settings"], asked)) or "its settings have changed"
        if row.kind != "fetch" and manifest["seed"] != self.plan.study.seed:
            yield f"seed {manifest['seed']} → {self.plan.study.seed}"
        found = self._source(job) if row.kind == "fetch" else {role: self._content(parents[role]) for role in parents}
        for role in sorted(found.keys() | manifest["parents"].keys()):
            if manifest["parents"].get(role) != found.get(role):
                yield f"{role} ({parents.get(role, 'no longer read' if role not in found else 'source')}) has changed"
        if row.file != artifacts.MANIFEST and (lost := self._changed_files(job, manifest["files"])):
            yield f"{', '.join(lost)} in it is gone or was changed"
        if self.compare_code and recorded["code"] != wanted["code"]:
            yield f"code of the stage {row.stage or row.name} has changed"

    def _changed_files(self, job: PlannedJob, files: Mapping[str, Mapping]) -> list[str]:
        """Files of a result without a manifest that are not as they were made; others depend on none of them."""
        there = {name: path for name in files if (path := Path(job.folder) / name).is_file()}
        found = artifacts.hashes_of(there, self.plan.work_folder(Path(job.folder)) / artifacts.HASHES)
        return [name for name in files if found.get(name) != files[name]]

    def _content(self, folder: str) -> str:
        if folder not in self._contents:
            self._contents[folder] = artifacts.fingerprint(folder)
        return self._contents[folder]

    def _source(self, job: PlannedJob) -> dict[str, str]:
        """Content of a local source."""
        return content_of(self.plan.sources[job.folder], Path(job.folder))


def changed_settings(before: Any, after: Any, path: str = "") -> list[str]:
    """`path before → after` of the first settings that differ; what only one side has by default is not told."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for name in after:
            if name in before and before[name] != after[name]:
                lines += changed_settings(before[name], after[name], f"{path}.{name}" if path else name)
        return lines[:SHOWN]
    return [f"{path} {_shown(before)} → {_shown(after)}"]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
