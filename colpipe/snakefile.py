"""What the Snakefile needs beside the plan (no torch here)."""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path


def one_of(names: Iterable[str]) -> str:
    """A wildcard constraint that only these names meet."""
    return "|".join(map(re.escape, names)) or "(?!)"


def devices_flags(remote: bool):
    """Params function: what a job may use, for `colpipe.launch`. A param that looks at the resources is never compared
    between runs.

    Args:
        remote: a scheduler runs the job: it has what it asked for, and ends when its time is over.
    """

    def flags(wildcards, resources) -> str:
        count = resources.get("gpu") or str(resources.get("gres", "")).rpartition(":")[2] or 0
        return f"--devices {count}" + (f" --granted --minutes {resources.runtime}" if remote else "")

    return flags


def run_stages_here(checkout: str) -> None:
    """Have jobs run with the Python that runs Snakemake, and find this checkout's package."""
    for variable, place in (("PATH", str(Path(sys.executable).parent)), ("PYTHONPATH", checkout)):
        others = os.environ.get(variable, "").split(os.pathsep)
        os.environ[variable] = os.pathsep.join([place, *(other for other in others if other and other != place)])
    # Linux's malloc gives large blocks back at every step of a training on a CPU and asks for them again at the next;
    # keeping them made micro models 10 to 20 % faster, with the same bits.
    for variable in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        os.environ.setdefault(variable, "1000000000")
