"""All benchmarks, one after the other: what each prints, one JSON file of what they found, and a page of it (`--page`).

    python -m tests.benchmarks            three quarters of an hour alone on 2 cores, 12 GB of disk, 8 GB of memory
    python -m tests.benchmarks --quick    small sizes, minutes; tells nothing but that they still run (CI does it)

Missing a goal is no failure; a benchmark that does not come to its end is one. Linux only (/proc).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measuring import Line

HELPERS = {"__init__", "__main__", "measuring"}
HEAD = """# Performance

What `make bench` measured, which writes this page, alone on {cores} cores:
{processor}.

Two ways to the same ran in turns, but for `fit`. A ratio is ours / the other: below 1 is faster, or smaller. How each
is measured is said at the top of its file in `tests/benchmarks/`. Seconds are of this machine, ratios hold more widely.

| benchmark | what | ours | beside it | ratio | goal |
|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks.json"), metavar="FILE")
    parser.add_argument("--page", type=Path, metavar="FILE", help="a Markdown page of it, if all come to their end")
    arguments = parser.parse_args()
    if arguments.quick and arguments.page:
        parser.error("--page with --quick: small sizes tell nothing that a page could say")
    found, failed = {}, []
    for name in sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in HELPERS):
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *(["--quick"] if arguments.quick else [])]
        begun, last = time.monotonic(), ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                print(last, end="", flush=True)
                last = line
        if process.returncode:
            print(last, end="")
            failed.append(name)
        else:
            found[name] = json.loads(last)
        print(f"{time.monotonic() - begun:.0f} s in all", flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{arguments.output}: {', '.join(found)}")
    if failed:
        sys.exit(f"did not come to their end: {', '.join(failed)}")
    if arguments.page:
        arguments.page.write_text(page_of(found))


def page_of(found: dict[str, dict]) -> str:
    """docs/performance.md."""
    machine = next(each["machine"] for each in found.values())
    lines = [cells for name, each in found.items() for cells in rows(name, each["lines"])]
    return HEAD.format(**machine) + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def rows(name: str, lines: list[dict]) -> Iterator[list[str]]:
    """Cells of a benchmark's lines; its name stands in the first."""
    for line in (Line(**each) for each in lines):
        beside, ratio = "", ""
        if line.theirs is not None:
            beside, ratio = f"{line.beside}: {line.value(line.theirs)}", line.ratio()
        yield [f"`{name}`" if name else "", line.what, line.value(line.ours), beside, ratio, line.goal]
        name = ""


if __name__ == "__main__":
    main()
