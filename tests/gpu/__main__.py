"""What colpipe computes on an accelerator, checked in ten minutes; on a CPU, the part that needs none, in three.

    python -m tests.gpu                       the device that a study would use (make gpu-check)
    python -m tests.gpu --device cpu          the CPU's part
    python -m tests.gpu --only objectives     one check
    python -m tests.gpu --hide trl,einops     as if these were not installed

Needs a checkout with torch, transformers and accelerate; what needs more says so. A line for each thing looked at: passed,
failed, or not run and why. The last line is JSON, which is also written to a file that `colpipe estimate` reads. Exits
with 1 where anything failed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.gpu import bare
from tests.gpu.finding import FAILED, NOT_RUN, PASSED
from tests.gpu.running import CHECKS, run_all

MINUTES = {"accelerator": 10.0, "cpu": 3.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [check.name for check in CHECKS]
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "npu"), default="auto")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CHECK", help=", ".join(names))
    parser.add_argument("--minutes", type=float, help="what is not begun or done by then is not run (10; on a CPU 3)")
    parser.add_argument("--hide", type=lambda text: text.split(","), default=[], metavar="MODULES")
    parser.add_argument("--output", type=Path, default=Path("results/gpu-check.json"), metavar="FILE")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if arguments.hide:
        bare.hide(arguments.hide)
    begun = time.monotonic()
    kind = "cpu" if arguments.device == "cpu" else _kind(arguments.device)
    if kind == "cpu":  # what is this small gains nothing from more threads, and loses much where others use the cores
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    minutes = arguments.minutes or MINUTES["cpu" if kind == "cpu" else "accelerator"]
    chosen = tuple(check for check in CHECKS if check.name in arguments.only)
    found: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory(prefix="colpipe-gpu-check-") as folder:
        for check, finding, seconds in run_all(chosen, kind, Path(folder), begun + 60 * minutes):
            print(f"{finding.line(check.name)} [{seconds:.1f} s]", flush=True)
            found.setdefault(check.name, []).append({**finding._asdict(), "seconds": round(seconds, 2)})
    counts = Counter(entry["state"] for entries in found.values() for entry in entries)
    seconds = time.monotonic() - begun
    print(f"{', '.join(f'{counts[state]} {state}' for state in (PASSED, FAILED, NOT_RUN))}, {seconds:.0f} s")
    result = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "kind": kind,
        "seconds": round(seconds, 1),
        "counts": dict(counts),
        "measured": measured(found),
        "checks": found,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    sys.exit(1 if counts[FAILED] else 0)


def _kind(wanted: str) -> str:
    """`cuda`, `npu` or `cpu`, found in a process of its own: this one must not touch the device before others begin."""
    import subprocess

    program = "from colpipe.jobs.device import pick_device; import sys; print(pick_device(sys.argv[1]).type)"
    done = subprocess.run([sys.executable, "-c", program, wanted], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"python -m tests.gpu: error: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def measured(found: dict[str, list[dict]]) -> dict | None:
    """What `colpipe estimate` takes: FLOP/s of the first training of each precision; None where none was timed.
    Beside it, by vocabulary, the chunks of the loss that were the fastest."""
    training: dict[str, dict] = {}
    for entry in found.get("speed", []):
        numbers = entry["numbers"]
        if "flops_per_second" in numbers and entry["state"] == PASSED:
            training.setdefault(
                numbers["precision"], {"of": entry["name"], "flops_per_second": numbers["flops_per_second"]}
            )
    if not training:
        return None
    device = next((entry["name"] for entry in found.get("devices", [])), "unknown device")
    numbers = [entry["numbers"] for entry in found["speed"] if "best_chunk" in entry["numbers"]]
    chunks = {each["vocabulary"]: {name: each[f"best_{name}"] for name in ("chunk", "part")} for each in numbers}
    return {"device": device, "training": training, "fastest_chunks": chunks}


if __name__ == "__main__":
    main()
