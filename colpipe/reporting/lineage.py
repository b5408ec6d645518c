"""Where every model comes from: from its manifest over those of its parents to the sources."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from colpipe.config.parts import Source
from colpipe.errors import ColpipeError
from colpipe.hashing import key_of
from colpipe.jobs.artifacts import read_manifest
from colpipe.pipeline.graph import PlannedJob
from colpipe.pipeline.rules import RULES


class Step(NamedTuple):
    """One folder in the lineage of another.

    Attributes:
        depth: how many jobs lie between.
        role: what its reader took it as; empty for the model itself.
        content: fingerprint of its files as its reader took them; empty where neither has a manifest.
        replaced: whether its reader read other files than its manifest names.
        again: whether it was shown with its own parents before.
    """

    depth: int
    role: str
    folder: str
    rule: str
    content: str
    replaced: bool
    again: bool


class Fetched(NamedTuple):
    """A staged source.

    Attributes:
        origin: in one line, with its revision or version.
        wheels: name==version → sha256, where it is from wheels.
        files: relative path → {bytes, sha256}.
    """

    folder: str
    origin: str
    wheels: Mapping[str, str]
    files: Mapping[str, Mapping]


def manifests(root: Path, jobs: Mapping[str, PlannedJob]) -> dict[str, dict]:
    """Folder → manifest of every job that has finished; `root` is the working directory of the study."""
    found = {}
    for folder in jobs:
        try:
            found[folder] = read_manifest(root / folder)
        except ColpipeError:  # the report itself, which has none, or one that was removed since
            continue
    return found


def content(manifest: Mapping) -> str:
    """Fingerprint of the files that a manifest names, as `artifacts.fingerprint` gives it for their folder."""
    return key_of({name: entry["sha256"] for name, entry in manifest.get("files", {}).items()})


def lineage(folder: str, jobs: Mapping[str, PlannedJob], known: Mapping[str, dict]) -> Iterator[Step]:
    """A model, then depth first all that it is made from; each folder with its parents once."""
    seen = set()

    def steps(folder: str, role: str, reader: str, depth: int) -> Iterator[Step]:
        own = content(known[folder]) if folder in known else ""
        read = known.get(reader, {}).get("parents", {}).get(role)
        yield Step(
            depth, role, folder, jobs[folder].rule, read or own, bool(own and read and own != read), folder in seen
        )
        if folder not in seen:
            seen.add(folder)
            for name, parent in jobs[folder].parents.items():
                yield from steps(parent, name, folder, depth + 1)

    return steps(folder, "", "", 0)


def fetched(jobs: Mapping[str, PlannedJob], known: Mapping[str, dict]) -> list[Fetched]:
    """Every source of the study that is staged."""
    found = []
    for folder, job in jobs.items():
        if job.rule and RULES[job.rule].kind == "fetch" and folder in known:
            source = Source.model_construct(**known[folder].get("settings", {}))
            files = known[folder].get("files", {})
            found.append(Fetched(folder, origin(source), source.wheels, files))
    return sorted(found)


def origin(source: Source) -> str:
    """A source in one line."""
    if source.hub:
        return f"hub {source.hub} at revision {source.revision or 'unpinned: the newest when it was fetched'}"
    if source.path:
        return f"path {source.path}"
    return f"{'wheels' if len(source.wheels) > 1 else 'wheel'} {', '.join(source.wheels)}"
