"""What the workflow itself costs: plans of a thousand and ten thousand jobs, nothing to do, jobs with little to do.

    python -m tests.benchmarks.workflow HOME      HOME: a folder to work in, empty

Seconds of this machine, with goals that were set for it; fails where one is missed.
"""

import argparse
import copy
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.conftest import STUDY, checkout, make_inputs

GOALS = {1_000: 3.0, 10_000: 10.0}  # jobs → seconds that planning them may take
EACH = 12  # jobs of a DesNet: two initialisers, each assembled once, recovered twice, scored three times
FEW = 12  # DesNets that are assembled


def study(desnets: int, budgets: list[int]) -> dict:
    changed = copy.deepcopy(STUDY)
    changed["budgets"] = budgets
    shapes = ({"layers": 2 + number % 3, "heads": 2, "hidden": 16} for number in range(desnets))
    changed["desnets"] = {f"d{number}": {"shape": shape} for number, shape in enumerate(shapes)}
    return changed


def timed(home: Path, *arguments: str) -> tuple[float, float, str]:
    """Seconds, megabytes at the peak, and what was said, of a Snakemake run."""
    command = [
        "/usr/bin/time",
        "-f",
        "%M",
        sys.executable,
        "-m",
        "snakemake",
        "--configfile",
        "my-study.yaml",
        *arguments,
    ]
    begun = time.monotonic()
    result = subprocess.run(command, cwd=home, capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stdout + result.stderr)
    return time.monotonic() - begun, int(result.stderr.splitlines()[-1]) / 1e3, result.stdout + result.stderr


def write(home: Path, value: dict) -> None:
    (home / "my-study.yaml").write_text(yaml.safe_dump(value, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.workflow", description=__doc__)
    parser.add_argument("home", type=Path)
    home = parser.parse_args().home.resolve()
    (home / "made").mkdir()
    checkout(home, make_inputs(home / "made"), STUDY)

    missed = []
    for jobs, goal in GOALS.items():
        write(home, study(-(-jobs // EACH), [0, 512, 1024]))
        seconds, megabytes, said = timed(home, "--cores", "2", "-n", "--quiet", "rules")
        count = int(re.search(r"^total +(\d+)", said, re.MULTILINE).group(1))
        print(f"a plan of {count:,} jobs: {seconds:.1f} s (goal {goal:g}), {megabytes:,.0f} MB", flush=True)
        if seconds > goal:
            missed.append(jobs)

    write(home, study(FEW, [0]))
    timed(home, "--cores", "2", "chain")
    seconds, _, _ = timed(home, "--cores", "1", "desnets")
    runs = [json.loads(path.read_text()) for path in home.glob("results/tiny/desnets/*/*/*/0/run.json")]
    again, _, said = timed(home, "--cores", "1", "desnets")
    assert "Nothing to be done" in said and len(runs) == FEW + FEW, (said, len(runs))
    own = sum(run["seconds"] for run in runs) / len(runs)
    print(
        f"{len(runs)} small jobs one after the other: {seconds / len(runs):.1f} s each, {own:.1f} s of them in the stage"
    )
    print(f"nothing to do: {again:.1f} s")
    if missed:
        sys.exit(f"goals missed for plans of {missed} jobs")


if __name__ == "__main__":
    main()
