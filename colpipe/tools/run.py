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

import colpipe
from colpipe.errors import ColpipeError

PACKAGE = Path(colpipe.__file__).parent


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
    sys.stdout.flush()
    os.execv(sys.executable, command(known.study, others))


def command(study: Path, others: Sequence[str]) -> list[str]:
    """Snakemake's command line. A folder called snakemake in the working directory is not taken for it (-P)."""
    asked = any(word.startswith(("--cores", "-c", "--jobs", "-j")) for word in others)
    cores = [] if asked else ["--cores", str(len(os.sched_getaffinity(0)))]
    rules = snakefile()
    own = any(word.startswith("--workflow-profile") for word in others)
    profile = [] if own else ["--workflow-profile", str(rules.parent / "workflow" / "profiles" / "default")]
    # Options that take several values come before it: what follows the last of them is the study.
    return [
        *(sys.executable, "-P", "-m", "snakemake", *others, *cores, *profile),
        *("--snakefile", str(rules), "--configfile", str(study)),
    ]


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
