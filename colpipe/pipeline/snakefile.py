"""What the Snakefile needs beside the plan (no torch here)."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from colpipe.jobs.artifacts import write_json
from colpipe.jobs.code import code_version

# Shell commands of rules; `Plan.params` has their params. A stage that uses accelerators is launched on those of its job.
ARGUMENTS = "{params.inputs} --settings {params.settings:q} {params.seed} {params.where} --log {log:q}"
RUN = "python -m colpipe.stages.{params.stage} " + ARGUMENTS
LAUNCH = "python -m colpipe.jobs.launch {params.stage} {params.devices} " + ARGUMENTS


def one_of(names: Iterable[str]) -> str:
    """A wildcard constraint that only these names meet."""
    return "|".join(map(re.escape, names)) or "(?!)"


def site_of(workflow) -> dict[str, str]:
    """What a profile says of its cluster among `default-resources`, name → text."""
    resources = workflow.resource_settings.default_resources or {}
    texts = {name: str(getattr(resource, "raw", resource)) for name, resource in resources.items()}
    return {name: text.strip("'\"") for name, text in texts.items() if name in ("light_partition", "accelerator_gres")}


def code_versions(results: Path, workflow) -> Callable[[str], str]:
    """Module → the version of its code that reruns are decided by.

    Where `code` is no reason to rerun, that is the version of when it was first asked for so; these are kept in
    `<results>/frozen.json`, which any other run removes. What is a reason is known when jobs are made, not before.
    """
    pins = results / "frozen.json"

    def version(module: str) -> str:
        if "code" in map(str, workflow.rerun_triggers):
            pins.unlink(missing_ok=True)
            return code_version(module)
        kept = json.loads(pins.read_text()) if pins.exists() else {}
        if module not in kept:
            kept[module] = code_version(module)
            results.mkdir(parents=True, exist_ok=True)
            write_json(pins, kept)
        return kept[module]

    return version


def show_time_left(handlers: Iterable[object], results: Path) -> None:
    """Add the time left to the progress bars of `--logger rich`.

    Args:
        handlers: the logger plugins of this run.
        results: `results/<study>/`.
    """
    for handler in handlers:
        if progress := getattr(handler, "progress", None):
            from colpipe.pipeline.progress import TimeLeft  # needs rich, which comes with the logger

            progress.columns = (*progress.columns, TimeLeft(progress, results))


def run_stages_here(checkout: str) -> None:
    """Have jobs run with the Python that runs Snakemake, and find this checkout's package."""
    for variable, place in (("PATH", str(Path(sys.executable).parent)), ("PYTHONPATH", checkout)):
        others = os.environ.get(variable, "").split(os.pathsep)
        os.environ[variable] = os.pathsep.join([place, *(other for other in others if other and other != place)])
    # Linux's malloc gives large blocks back at every step of a training on a CPU and asks for them again at the next;
    # keeping them made micro models 10 to 20 % faster, with the same bits.
    for variable in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        os.environ.setdefault(variable, "1000000000")
