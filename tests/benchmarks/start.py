"""What it takes to start a job with little to do: seconds of wall and processor time, on its own and with the shared start.

    python -m tests.benchmarks.start            100 jobs of each, by turns
    python -m tests.benchmarks.start --quick    4 of each

The job is the stage `assemble` with settings that it refuses: it imports all that it needs, reads its settings, and ends.
Prints a line and, as the last line, one JSON object. `waited_processor_seconds` is of the processes that were waited
for: of the shared start, of its client alone.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

from colpipe.jobs.start import SHARED
from tests.benchmarks.measuring import Line, report
from tests.conftest import CHECKOUT

REFUSED = ["--tokenizer", "none", "--output", "none", "--settings", "{}"]


def start(stage: str, shared: bool) -> dict[str, float]:
    """Seconds of one job."""
    environment = {name: value for name, value in os.environ.items() if name != SHARED}
    environment |= {"PYTHONPATH": str(CHECKOUT), **({SHARED: str(os.getpid())} if shared else {})}
    command = [sys.executable, "-P", "-m", "colpipe.jobs.start", stage, *REFUSED]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode != 1 or "--settings: architecture" not in ended.stderr or "no shared start" in ended.stderr:
        raise SystemExit(f"{stage} ended with status {ended.returncode}:\n{ended.stderr}")
    waited = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "waited_processor_seconds": waited}


def summary(jobs: list[dict[str, float]]) -> dict[str, float]:
    """Median and largest of each."""
    found = {}
    for name in jobs[0]:
        values = [job[name] for job in jobs]
        found |= {name: round(statistics.median(values), 3), f"{name}_most": round(max(values), 3)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.start", description=__doc__)
    parser.add_argument("--stage", default="assemble")
    parser.add_argument("--quick", action="store_true", help="4 jobs of each instead of 100")
    arguments = parser.parse_args()
    first = start(arguments.stage, shared=True)  # has the server load its libraries
    jobs: dict[str, list[dict[str, float]]] = {"plain": [], "shared": []}
    for _ in range(4 if arguments.quick else 100):
        for kind, measured in jobs.items():
            measured.append(start(arguments.stage, kind == "shared"))
    found = {kind: summary(measured) for kind, measured in jobs.items()}
    shared, plain = found["shared"]["seconds"], found["plain"]["seconds"]
    lines = [
        Line(f"start of a stage, median of {len(jobs['plain'])}", "s", shared, "a process of its own", plain),
    ]
    report(lines, stage=arguments.stage, jobs=len(jobs["plain"]), first=first, **found)


if __name__ == "__main__":
    main()
