"""Run a study: Snakemake with colpipe's rules, whose targets and options are passed on.

    colpipe run my-study.yaml                     everything, on all cores
    colpipe run my-study.yaml published -n        what one target would run
    colpipe run my-study.yaml --cores 4 --config seed=7

Results go to results/<study>/ in the current folder.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

import colpipe
from colpipe.errors import ColpipeError
from colpipe.jobs.job import TOLD
from colpipe.jobs.processor import cores as available
from colpipe.tools.parser import require_options

PACKAGE = Path(colpipe.__file__).parent
# Options of Snakemake that most runs have. Only others are looked up: loading Snakemake for it takes seconds.
USUAL = (
    "--cores",
    "--jobs",
    "--dry-run",
    "--config",
    "--forcerun",
    "--unlock",
    "--list-target-rules",
    "--logger",
    "--profile",
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="colpipe run",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
        usage="colpipe run STUDY [TARGET …] [OPTIONS OF SNAKEMAKE …]",
    )
    parser.add_argument("study", type=Path, metavar="STUDY", help="the study, a YAML file")
    known, others = parser.parse_known_args(arguments)
    if not known.study.is_file():
        raise ColpipeError(f"{known.study}: no such file; the study comes first, then targets and options")
    require_yaml(known.study)
    require_known(others)
    # Snakemake looks for logger plugins along the path only, where an editable installation is not.
    places = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    if not asks(others, "--logger"):
        os.environ[TOLD] = "1"
    sys.stdout.flush()
    os.execv(sys.executable, command(known.study, others))


def require_yaml(study: Path) -> None:
    """Refuse what Snakemake would refuse without a line number.

    Raises:
        ColpipeError: names the line.
    """
    try:
        yaml.safe_load(study.read_bytes())
    except yaml.YAMLError:
        from colpipe.config.loading import check_text  # a second, spared the others

        check_text(study)


def require_known(others: Sequence[str]) -> None:
    """Refuse options that Snakemake does not have: it would print all that it has.

    Raises:
        ColpipeError: names the first of them, and what is near.
    """
    if any(word.startswith("--") and word.partition("=")[0] not in USUAL for word in others):
        from snakemake.cli import get_argument_parser

        require_options(others, get_argument_parser()._option_string_actions, "snakemake")


def command(study: Path, others: Sequence[str]) -> list[str]:
    """Snakemake's command line. A folder called snakemake in the working directory is not taken for it (-P)."""
    cores = [] if asks(others, "--cores", "-c", "--jobs", "-j") else ["--cores", str(available())]
    rules = snakefile()
    profile = (
        []
        if asks(others, "--workflow-profile")
        else ["--workflow-profile", str(rules.parent / "workflow" / "profiles" / "default")]
    )
    logger = [] if asks(others, "--logger") else ["--logger", "colpipe"]
    # Options that take several values come before it: what follows the last of them is the study.
    return [
        *(sys.executable, "-P", "-m", "snakemake", *others, *cores, *logger, *profile),
        *("--snakefile", str(rules), "--configfile", str(study)),
    ]


def asks(words: Sequence[str], *options: str) -> bool:
    """Whether a command line has one of these options, with its value or before it."""
    return any(word.startswith(options) for word in words)


def snakefile() -> Path:
    """The Snakefile of this checkout, or the one that was installed with the package.

    Raises:
        ColpipeError: there is neither.
    """
    places = [PACKAGE.parent / "Snakefile", PACKAGE / "checkout" / "Snakefile"]
    for path in places:
        if path.is_file() and (path.parent / "workflow" / "rules").is_dir():
            return path
    raise ColpipeError(f"no Snakefile at {' or '.join(map(str, places))}: install colpipe again")
