"""The command line of a stage: `python -m colpipe.stages.<stage>` (no torch here).

A stage module reads top to bottom: its settings, a body that loads, makes one call and publishes, and `run_stage`.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from colpipe.config.needs import JobRuntime
from colpipe.config.trackers import require_trackers
from colpipe.errors import ColpipeError, failure_text
from colpipe.jobs.job import Job, JobSpec, SettingsT

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def run_stage(
    stage: str,
    description: str,
    body: Callable[[Job[SettingsT]], None],
    *,
    inputs: Mapping[str, str],
    settings: type[SettingsT],
    optional: tuple[str, ...] = (),
    package: str = "stages",
) -> None:
    """Parse the arguments of a stage, run its body, and turn bad input into one line and status 1.

    Args:
        stage: name of the module.
        description: its docstring, shown by `--help`.
        body: does the work and publishes.
        inputs: parent name → help; each becomes `--<name> FOLDER`. A name ending in `*` takes any number of
            `NAME=FOLDER`, which become parents `<name>.NAME`.
        settings: model that validates `--settings`.
        optional: names of inputs that may be left out.
        package: of the module, below `colpipe`: `stages`, or `tools` for what no rule runs.
    """
    module = f"colpipe.{package}.{stage}"
    arguments = vars(_parser(module, description, inputs, optional).parse_args())
    job = None
    try:
        asked = _read(arguments["settings"], "--settings")
        spec = JobSpec(
            stage,
            arguments["output"],
            arguments["work"] or arguments["output"].with_name(arguments["output"].name + ".work"),
            _validated(asked, settings, "--settings"),
            _validated(_read(arguments["runtime"], "--runtime"), JobRuntime, "--runtime"),
            _parents(inputs, arguments),
            arguments["seed"],
            arguments["log"],
            arguments["minutes"],
            module,
            asked,
        )
        with Job(spec) as job:
            require_trackers(job.runtime.report_to)
            if int(os.environ.get("WORLD_SIZE", 1)) > 1:
                from colpipe.jobs.device import join_processes

                join_processes(job.runtime.device)
            body(job)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the last saved state stays
    except Exception as error:
        if job is None:  # it could not begin, so it has no log that tells
            print(f"{stage}: {failure_text(error, arguments['output'])}", file=sys.stderr)
        raise SystemExit(1) from None


def _parser(
    module: str, description: str, inputs: Mapping[str, str], optional: tuple[str, ...]
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, text in inputs.items():
        if name.endswith("*"):
            parser.add_argument(f"--{name[:-1]}", nargs="*", default=[], metavar="NAME=FOLDER", help=text)
        else:
            parser.add_argument(f"--{name}", type=Path, required=name not in optional, metavar="FOLDER", help=text)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the result")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="resumable state and logs (default: <output>.work)")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="settings: JSON, or a .json or .yaml file")
    parser.add_argument("--runtime", default="{}", metavar="JSON", help="runtime settings; they change no result")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice (default: 0)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="log of this run, beside the lasting one in --work")
    parser.add_argument("--minutes", type=float, metavar="N", help="save and exit with status 143 before N are over")
    return parser


def _parents(inputs: Mapping[str, str], arguments: Mapping) -> dict[str, Path]:
    """Parent name → folder, of all that were given."""
    parents = {}
    for name in inputs:
        given = arguments[name.rstrip("*").replace("-", "_")]
        if name.endswith("*"):
            for pair in given:
                label, _, folder = pair.partition("=")
                parents[f"{name[:-1]}.{label}"] = Path(folder)
        elif given is not None:
            parents[name] = given
    return parents


def _read(text: str, where: str) -> Any:
    """Settings as they are asked for: JSON text, or what a file holds."""
    try:
        from_file = text.endswith((".json", ".yaml", ".yml"))
        return yaml.safe_load(Path(text).read_text()) if from_file else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ColpipeError(f"{where} {text!r}: cannot be read ({error})") from None


def _validated(value: Any, model: type[SettingsT], where: str) -> SettingsT:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise ColpipeError(f"{where}: {path}: {problem['input']!r}: {problem['msg']}") from None
