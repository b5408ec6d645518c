"""Artifacts, the finished results of jobs: folders whose manifest was written last (no torch here).

    manifest.json   names, sizes and sha256 of the files, the settings, the parents' fingerprints, versions. Equal runs
                    give equal manifests; it is the only output that the workflow declares.
    run.json        what may differ between equal runs: times, host, what the job used.
    metrics.jsonl   the measurements of the run.

Everything else in the folder is content, and the content has a fingerprint.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from colpipe.errors import ColpipeError
from colpipe.hashing import key_of, sha256

MANIFEST = "manifest.json"
APART = {MANIFEST, "run.json", "metrics.jsonl"}  # kept beside the content, not part of it
HASHES = ".fingerprint.json"  # sha256 by size and modification time, so that a file is read once
MISSING = "missing"
_hashed: dict[str, dict] = {}  # what `HASHES` of a folder holds, as this process last saw it
AFFECTS_RESULTS = False


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, never a part."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)


def content_files(folder: Path) -> list[Path]:
    """The files that make up a result's content, sorted by their relative path."""
    return sorted(path for path in _visible_files(folder) if path.relative_to(folder).as_posix() not in APART)


def _visible_files(folder: Path) -> Iterable[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _visible_files(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)


def content_hashes(folder: Path) -> dict[str, dict]:
    """Relative path → {bytes, sha256} of a folder's content; a file is read only when its size or mtime is new."""
    store = folder / HASHES
    known = _hashed.get(str(folder)) or _stored(store)
    hashes, cache_now = {}, {}
    for path in content_files(folder):
        name, status = path.relative_to(folder).as_posix(), path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        digest = known[name][1] if name in known and known[name][0] == stamp else sha256(path)
        hashes[name] = {"bytes": status.st_size, "sha256": digest}
        cache_now[name] = [stamp, digest]
    if cache_now != known:
        with contextlib.suppress(OSError):  # a read-only folder is hashed again each time
            write_json(store, cache_now)
    _hashed[str(folder)] = cache_now
    return hashes


def _stored(store: Path) -> dict:
    try:
        known = json.loads(store.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def fingerprint(folder: Path | str) -> str:
    """Content of a folder as 16 hex digits; `missing` where there is none.

    Touching files changes nothing, changing a byte of any of them does. A file may be used as well as a folder.
    """
    path = Path(folder)
    if path.is_file():
        return sha256(path)[:16]
    if not path.is_dir() or not (hashes := content_hashes(path)):
        return MISSING
    return key_of({name: entry["sha256"] for name, entry in hashes.items()})


def read_manifest(folder: Path | str) -> dict:
    """The manifest of a finished result.

    Raises:
        ColpipeError: there is none, it is damaged, or a file that it names is gone.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise ColpipeError(f"{path}: not found; the stage that makes {folder} has not finished") from None
    except ValueError as error:
        raise ColpipeError(f"{path}: is not JSON ({error}); delete it to have the stage run again") from None
    found = manifest.pop("checksum", None) if isinstance(manifest, dict) else ""
    if found is not None and found != key_of(manifest):
        raise ColpipeError(f"{path}: is damaged, or was edited; delete it to have the stage run again")
    for name in manifest.get("files", {}):
        if not (Path(folder) / name).exists():
            raise ColpipeError(
                f"{Path(folder) / name}: is gone, but {path} names it; delete the manifest to have it made again"
            )
    return manifest


def was_replaced(folder: Path) -> bool:
    """Whether a result's files are no longer those that its manifest names: a checkpoint swapped by hand."""
    if not (folder / MANIFEST).exists():
        return False
    return read_manifest(folder).get("files") != content_hashes(folder)


def publish(staging: Path, folder: Path, manifest: Mapping, run: Mapping) -> None:
    """Move a staged result into its folder and write the manifest last.

    Files that were there before and are not part of the new result are removed, so a folder never mixes two runs.

    Args:
        staging: folder with the result's files, on the same file system as `folder`.
        folder: where the result belongs.
        manifest: what equal runs have in common; the files and their hashes are added here.
        run: what may differ between equal runs.

    Raises:
        ColpipeError: nothing was staged.
    """
    hashes = content_hashes(staging)
    if not hashes:
        raise ColpipeError(f"{staging}: nothing to publish")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in content_files(folder):
        if path.relative_to(folder).as_posix() not in hashes:
            path.unlink()
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        target = folder / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    shutil.rmtree(staging)
    write_json(folder / "run.json", run)
    manifest = {**manifest, "files": hashes}
    write_json(folder / MANIFEST, {**manifest, "checksum": key_of(manifest)})


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin a write that cannot end.

    Raises:
        ColpipeError: fewer than `needed` bytes are free where `folder` is.
    """
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ColpipeError(
            f"{folder}: no space left for {what}: it needs {needed / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free; "
            "free some or move the results"
        )
