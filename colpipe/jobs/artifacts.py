"""Artifacts, the finished results of jobs: folders whose manifest was written last (no torch here).

    manifest.json   what the result was made of (settings, seed, code, the parents' fingerprints), and names, sizes and
                    sha256 of its files. Equal runs give equal manifests; it is the only output that the workflow declares.
    run.json        what may differ between equal runs: times, host, what the job used.
    metrics.jsonl   the measurements of the run.

Everything else in the folder is content, and the content has a fingerprint. Hidden files are neither: `.fingerprint.json`
remembers hashes, and `.superseded.json` is a second name of the manifest while a successor is being made.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from pathlib import Path

from colpipe.errors import ColpipeError
from colpipe.hashing import key_of, sha256

MANIFEST = "manifest.json"
APART = {MANIFEST, "run.json", "metrics.jsonl"}  # kept beside the content, not part of it
HASHES = ".fingerprint.json"  # sha256 by `_stamp`, so that a file is read once
SUPERSEDED = ".superseded.json"
MISSING = "missing"
TICK = 100_000_000  # nanoseconds in which a file may change again without its times telling
_hashed: dict[str, dict] = {}  # what a store of hashes holds, as this process last saw it
AFFECTS_RESULTS = False


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, never a part.

    Raises:
        ColpipeError: a number in it is not finite, which JSON cannot say.
    """
    part = path.with_name(path.name + ".part")
    try:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise ColpipeError(f"{path}: cannot be written: {error}") from None
    part.write_text(text + "\n")
    os.replace(part, path)


def content_files(folder: Path) -> list[Path]:
    """The files that make up a result's content, sorted by their relative path; links to folders are followed."""
    return sorted(path for path in _visible_files(folder, ()) if path.relative_to(folder).as_posix() not in APART)


def _visible_files(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    place = os.path.realpath(folder)
    if place in above:  # a link to a folder that it lies in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _visible_files(Path(entry.path), (*above, place))
            elif entry.is_file():
                yield Path(entry.path)


def content_hashes(folder: Path, store: Path | None = None) -> dict[str, dict]:
    """Relative path → {bytes, sha256} of a folder's content; a file is read only when its stamp is new.

    Args:
        store: file that remembers hashes. Left out, it lies in the folder, where that is a finished result; nothing is
            written into any other folder, which may be a user's.
    """
    return hashes_of(
        {path.relative_to(folder).as_posix(): path for path in content_files(folder)}, store or _store_in(folder)
    )


def _store_in(folder: Path) -> Path | None:
    return folder / HASHES if (folder / MANIFEST).exists() else None


def hashes_of(files: Mapping[str, Path], store: Path | None) -> dict[str, dict]:
    """Name → {bytes, sha256} of files; `store` as in `content_hashes`, None to remember nothing beyond this process."""
    memory = str(store or next(iter(files.values()), ""))
    known = _hashed.get(memory) or (_stored(store) if store else {})
    hashes, remembered = {}, {}
    for name, path in files.items():
        status = path.stat()
        stamp = _stamp(status)
        digest = known[name][1] if name in known and known[name][0] == stamp else sha256(path)
        hashes[name] = {"bytes": status.st_size, "sha256": digest}
        if time.time_ns() - status.st_ctime_ns > TICK:
            remembered[name] = [stamp, digest]
    _remember(memory, store, known, remembered)
    return hashes


def _stamp(status: os.stat_result) -> list[int]:
    """What tells that a file may have changed. Change time and inode show what was put in its place with the same size
    and modification time, as `rsync -t` and archives leave it."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _remember(memory: str, store: Path | None, known: Mapping, remembered: dict) -> None:
    if store and remembered != known:
        with contextlib.suppress(OSError):  # a read-only folder is hashed again each time
            write_json(store, remembered)
    _hashed[memory] = remembered


def _stored(store: Path) -> dict:
    try:
        known = json.loads(store.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def fingerprint(folder: Path | str, store: Path | None = None) -> str:
    """Content of a folder as 16 hex digits; `missing` where there is none.

    Touching files changes nothing, changing a byte of any of them does. A file may be used as well as a folder.

    Args:
        store: file that remembers hashes, as in `content_hashes`.
    """
    path = Path(folder)
    if path.is_file():
        return hashes_of({path.name: path}, store)[path.name]["sha256"][:16]
    if not path.is_dir() or not (hashes := content_hashes(path, store)):
        return MISSING
    return fingerprint_of(hashes)


def fingerprint_of(files: Mapping[str, Mapping]) -> str:
    """Fingerprint of a content that is given as a manifest names its files: name → {bytes, sha256}."""
    return key_of({name: entry["sha256"] for name, entry in files.items()})


def read_manifest(folder: Path | str, name: str = MANIFEST) -> dict:
    """The manifest of a finished result, or what is called otherwise and is one.

    Raises:
        ColpipeError: there is none, it is damaged, or a file that it names is gone.
    """
    path = Path(folder) / name
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise ColpipeError(f"{path}: not found; the stage that makes {folder} has not finished") from None
    except ValueError as error:
        raise ColpipeError(f"{path}: is not JSON ({error}); delete it to have the stage run again") from None
    found = manifest.pop("checksum", None) if isinstance(manifest, dict) else ""
    if found is not None and found != key_of(manifest):
        raise ColpipeError(f"{path}: is damaged, or was edited; delete it to have the stage run again")
    for file in manifest.get("files", {}):
        if not (Path(folder) / file).exists():
            raise ColpipeError(
                f"{Path(folder) / file}: is gone, but {path} names it; delete the manifest to have it made again"
            )
    return manifest


def was_replaced(folder: Path) -> bool:
    """Whether a result's files are no longer those that its manifest names: a checkpoint swapped by hand."""
    if not (folder / MANIFEST).exists():
        return False
    return read_manifest(folder).get("files") != content_hashes(folder)


def publish(staging: Path, folder: Path, manifest: Mapping, run: Mapping) -> list[str]:
    """Move a staged result into its folder, the manifest last.

    All that takes room is written before the folder is touched, so a full disk costs nothing that was there. Files of the
    result before go, so a folder never mixes two runs. What no manifest names is somebody else's, and is set aside in
    `.set-aside-<number>`; links to folders go, never what they lead to.

    Args:
        staging: folder with the result's files.
        folder: where the result belongs.
        manifest: what equal runs have in common; the files and their hashes are added here.
        run: what may differ between equal runs.

    Returns:
        Paths of what was set aside.

    Raises:
        ColpipeError: nothing was staged, or a number in the manifest is not finite.
    """
    hashes = content_hashes(staging)
    if not hashes:
        raise ColpipeError(f"{staging}: nothing to publish")
    folder.mkdir(parents=True, exist_ok=True)
    staging = _on_file_system_of(folder, staging)
    manifest = {**manifest, "files": hashes}
    write_json(staging / "run.json", run)
    write_json(staging / MANIFEST, {**manifest, "checksum": key_of(manifest)})
    known = set(hashes).union(*(_named(folder / name) for name in (MANIFEST, SUPERSEDED)))
    if not any((folder / name).exists() for name in (MANIFEST, SUPERSEDED)):  # deleted, to have it made again
        known |= set(_stored(folder / HASHES))
    for name in (SUPERSEDED, MANIFEST):
        (folder / name).unlink(missing_ok=True)
    aside = set_aside(folder, known)
    for path in _own_files(folder):
        if path.relative_to(folder).as_posix() not in hashes:
            path.unlink()
    for path in (path for path in sorted(staging.rglob("*")) if path.is_file() and path != staging / MANIFEST):
        _replace(path, folder / path.relative_to(staging))
    stamps = {name: [_stamp((folder / name).stat()), entry["sha256"]] for name, entry in hashes.items()}
    _remember(str(folder / HASHES), folder / HASHES, {}, stamps)
    os.replace(staging / MANIFEST, folder / MANIFEST)
    shutil.rmtree(staging)
    return aside


def set_aside(folder: Path, known: Collection[str]) -> list[str]:
    """Move the files of a folder that are none of those known into `.set-aside-<number>` there: somebody else's.

    Returns:
        Where they are now.
    """
    aside = [path for path in _own_files(folder) if path.relative_to(folder).as_posix() not in known]
    place = next(place for number in count(1) if not (place := folder / f".set-aside-{number}").exists())
    for path in aside:
        _replace(path, place / path.relative_to(folder))
    return [(place / path.relative_to(folder)).as_posix() for path in aside]


def _on_file_system_of(folder: Path, staging: Path) -> Path:
    """The staged files, copied where the folder leads to another file system: only there can they be moved in one go."""
    if staging.stat().st_dev == folder.stat().st_dev:
        return staging
    near = folder / ".staging"
    shutil.rmtree(near, ignore_errors=True)
    shutil.copytree(staging, near, symlinks=True)
    shutil.rmtree(staging)
    return near


def _named(manifest: Path) -> set[str]:
    """The files that a manifest names; none where it is gone or damaged."""
    return set(_stored(manifest).get("files", {}))


def _own_files(folder: Path) -> list[Path]:
    """Files and links, those to folders too, that lie in a folder itself; neither hidden ones nor those of `APART`."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in links]
        found += [Path(place) / name for name in (*files, *links) if not name.startswith(".")]
    return [path for path in found if path.relative_to(folder).as_posix() not in APART]


def _replace(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)


def supersede(folder: Path) -> bool:
    """Keep a finished result valid while its successor is being made: its manifest gets a second name, because Snakemake
    deletes declared outputs before a job starts. `publish` drops it. Whether it had none before."""
    fresh = not (folder / SUPERSEDED).exists()
    with contextlib.suppress(OSError):  # a folder that is read-only: its job will say so
        part = folder / f"{SUPERSEDED}.part"
        part.unlink(missing_ok=True)
        _name_twice(folder / MANIFEST, part)
        os.replace(part, folder / SUPERSEDED)
        part.unlink(missing_ok=True)  # both were names of one file already
    return fresh


def restore(folder: Path) -> bool:
    """Give a result back the manifest that it lost to a successor that was not finished.

    Returns:
        Whether it had lost it, and is whole otherwise.
    """
    if (folder / MANIFEST).exists():
        return False
    try:
        read_manifest(folder, SUPERSEDED)
        _name_twice(folder / SUPERSEDED, folder / MANIFEST)
    except (ColpipeError, OSError):
        return False
    return True


def _name_twice(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without links
        shutil.copyfile(file, name)


def forget_superseded(folder: Path) -> None:
    """Drop the second name of a manifest that was not deleted after all."""
    if (folder / MANIFEST).exists():
        with contextlib.suppress(OSError):
            (folder / SUPERSEDED).unlink(missing_ok=True)


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
