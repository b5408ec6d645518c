"""All benchmarks, one after the other: what each prints, and one JSON file of what they found.

    python -m tests.benchmarks            half an hour alone on 2 cores, 12 GB of disk, 8 GB of memory
    python -m tests.benchmarks --quick    small sizes, minutes; tells nothing but that they still run (CI does it)

Missing a goal is no failure; a benchmark that does not come to its end is one. Linux only (/proc).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HELPERS = {"__init__", "__main__", "measuring"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks.json"), metavar="FILE")
    arguments = parser.parse_args()
    found, failed = {}, []
    for name in sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in HELPERS):
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *(["--quick"] if arguments.quick else [])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            last = ""
            for last in process.stdout or ():
                print(last, end="", flush=True)
        if process.returncode:
            failed.append(name)
        else:
            found[name] = json.loads(last)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{arguments.output}: {', '.join(found)}")
    if failed:
        sys.exit(f"did not come to their end: {', '.join(failed)}")


if __name__ == "__main__":
    main()
