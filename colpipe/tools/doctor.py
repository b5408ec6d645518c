"""What this machine has and lacks for colpipe: processors, memory, disk, accelerators, packages, locks.

    colpipe doctor

Exits with 1 where something is missing that every study needs.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

import colpipe
from colpipe.jobs.processor import cores, has_bfloat16, lacks_bfloat16
from colpipe.tools.parser import Parser
from colpipe.tools.run import snakefile

LITTLE_DISK = 10  # GB: a chain of 135M models and its DesNets
OK, NOTE, BAD = "ok", "note", "missing"


class Finding(NamedTuple):
    """A line: its mark, what it is about, what was seen and what to do."""

    mark: str
    about: str
    text: str


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("doctor", __doc__)
    parser.parse_args(arguments)
    found = []
    for finding in findings(Path.cwd()):  # one after the other: torch takes its time
        print(f"{finding.mark:<8}{finding.about:<14}{finding.text}", flush=True)
        found.append(finding.mark)
    if BAD in found:
        sys.exit(1)


def findings(here: Path) -> Iterator[Finding]:
    """All of them, for studies that run in a folder."""
    yield Finding(
        OK, "colpipe", f"{colpipe.__version__}, Python {sys.version.split()[0]}, rules of {snakefile().parent}"
    )
    yield from _packages()
    yield _processors()
    yield _memory()
    yield _disk(here)
    yield from _accelerators()
    yield from _locks(here)


def _packages() -> Iterator[Finding]:
    """What is required and not installed, or in another version than required; of optional ones, what they are for."""
    wanted = [Requirement(text) for text in requires("colpipe") or ()]
    lacking = [text for each in wanted if not each.marker and (text := _lack(each))]
    if lacking:
        yield Finding(BAD, "packages", f"{'; '.join(lacking)}: pip install --upgrade colpipe")
    else:
        names = ", ".join(f"{name} {version(name)}" for name in ("snakemake", "torch", "transformers", "trl"))
        yield Finding(OK, "packages", names)
    optional = [each for each in wanted if each.marker and each.marker.evaluate({"extra": "cluster"})]
    if lacking := [text for each in optional if (text := _lack(each))]:
        yield Finding(NOTE, "cluster", f"{'; '.join(lacking)}; for Slurm and Donau: pip install 'colpipe[cluster]'")
    yield _llama_cpp()


def _llama_cpp() -> Finding:
    """What can run exported models here: a package for their speed, programs to talk to them."""
    package, programs = find_spec("xllamacpp"), list(filter(shutil.which, ("llama-cli", "llama-server")))
    speed = "xllamacpp" if package else "no xllamacpp: pip install 'colpipe[llama-cpp]'"
    talk = ", ".join(programs) or "no llama-cli or llama-server on PATH: https://github.com/ggml-org/llama.cpp"
    mark = OK if package or programs else NOTE
    return Finding(mark, "llama.cpp", f"says how fast exported models are ({speed}), and talks to them ({talk})")


def _lack(requirement: Requirement) -> str | None:
    try:
        seen = version(requirement.name)
    except PackageNotFoundError:
        return f"no {requirement.name}"
    known = requirement.specifier.contains(seen, prereleases=True)
    return None if known else f"{requirement.name} {seen}, needed is {requirement.specifier}"


def _processors() -> Finding:
    count = cores()
    if lacks_bfloat16():
        return Finding(
            NOTE, "processors", f"{count}, without bfloat16: keep `precision: float32` for what runs on them"
        )
    told = "with bfloat16" if has_bfloat16() else "whether with bfloat16, their system does not tell"
    return Finding(OK, "processors", f"{count}, {told}")


def _memory() -> Finding:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding(OK, "memory", f"{size / 1e9:,.0f} GB; `colpipe estimate STUDY` says what a study needs")


def _disk(here: Path) -> Finding:
    if not os.access(here, os.W_OK):
        return Finding(BAD, "disk", f"{here} cannot be written; run studies in a folder of yours")
    free = shutil.disk_usage(here).free / 1e9
    return Finding(OK if free >= LITTLE_DISK else NOTE, "disk", f"{free:,.0f} GB free in {here}")


def _accelerators() -> Iterator[Finding]:
    from colpipe.jobs.device import why_not

    for kind in ("cuda", "npu"):
        reason = why_not(kind)
        yield Finding(NOTE if reason else OK, kind, reason or "there; colpipe has been tested on CPUs only")


def _locks(here: Path) -> Iterator[Finding]:
    locks = here / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        yield Finding(NOTE, "lock", f"{locks}: a Snakemake runs here, or was killed; then: colpipe run STUDY --unlock")
    if (here / "results").exists() and not (here / "results").is_dir():
        yield Finding(BAD, "results", f"{here / 'results'} is a file; studies make a folder of that name")
