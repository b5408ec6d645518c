"""What the workflow itself costs: plans of a thousand and ten thousand jobs, nothing to do, jobs with little to do.

Plans are dry runs of a tiny study with many DesNets; memory is the highest of Snakemake's process. Small jobs assemble
DesNets of a few thousand parameters, one after the other.

    python -m tests.benchmarks.workflow            4 minutes alone on 2 cores
    python -m tests.benchmarks.workflow --quick    a plan of a hundred jobs and two small jobs

Prints a line per measure and, as the last line, one JSON object. Missing a goal is no failure.
"""

import argparse
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.benchmarks.measuring import Line, report
from tests.conftest import STUDY, checkout, make_inputs

GOALS = {1_000: 2.5, 10_000: 10.0}  # jobs → seconds that planning them may take
LITTLE, NOTHING = 1.0, 2.0  # goals: seconds of a job with little to do, and of a run with nothing to do
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
    command = [sys.executable, "-m", "snakemake", "--configfile", "my-study.yaml", *arguments]
    with open(home / "said.txt", "w+") as said:
        begun = time.monotonic()
        process = subprocess.Popen(command, cwd=home, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        sys.exit(text)
    return seconds, usage.ru_maxrss / 1e3, text


def write(home: Path, value: dict) -> None:
    (home / "my-study.yaml").write_text(yaml.safe_dump(value, sort_keys=False))


def plans(home: Path, sizes: dict[int, float]) -> dict[str, dict]:
    """Dry runs of about so many jobs."""
    found = {}
    for jobs, goal in sizes.items():
        write(home, study(-(-jobs // EACH), [0, 512, 1024]))
        seconds, megabytes, said = timed(home, "--cores", "2", "-n", "--quiet", "rules")
        total = re.search(r"^total +(\d+)", said, re.MULTILINE)
        assert total, said
        found[total[1]] = {"seconds": seconds, "megabytes": megabytes, "goal": goal}
    return found


def small_jobs(home: Path, desnets: int) -> dict[str, float]:
    """Jobs with little to do, and none."""
    write(home, study(desnets, [0]))
    timed(home, "--cores", "2", "chain")
    seconds, _, _ = timed(home, "--cores", "1", "desnets")
    runs = [json.loads(path.read_text()) for path in home.glob("results/tiny/desnets/*/*/*/0/run.json")]
    again, _, said = timed(home, "--cores", "1", "desnets")
    assert "Nothing to be done" in said and len(runs) == 2 * desnets, (said, len(runs))
    own = sum(run["seconds"] for run in runs) / len(runs)
    each = seconds / len(runs)
    return {"jobs": len(runs), "each": each, "in_the_stage": own, "nothing_to_do": again}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few jobs")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "made").mkdir()
        checkout(home, make_inputs(home / "made"), STUDY)
        planned = plans(home, {100: GOALS[1_000]} if quick else GOALS)
        small = small_jobs(home, 1 if quick else FEW)
    lines = []
    for jobs, each in planned.items():
        plan = f"a plan of {int(jobs):,} jobs"
        lines += [Line(plan, "s", each["seconds"], limit=each["goal"]), Line(plan, "MB", each["megabytes"])]
    lines += [
        Line("a job with little to do", "s", small["each"], limit=LITTLE),
        Line("nothing to do", "s", small["nothing_to_do"], limit=NOTHING),
    ]
    report(lines, plans=planned, small=small)


if __name__ == "__main__":
    main()
