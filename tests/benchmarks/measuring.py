"""Seconds and memory of a piece of work in this process, and how benchmarks tell what they found. Linux only (/proc)."""

import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SAMPLING = 0.005  # seconds between looks at the memory


def memory() -> dict[str, int]:
    """Bytes of this process: resident, its peak, anonymous, pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {key: int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}


class Watch(threading.Thread):
    """Samples the memory of this process while the context is open; `peak` holds the highest of each figure, bytes."""

    def __enter__(self) -> "Watch":
        self.peak, self.done = memory(), threading.Event()
        self.start()
        return self

    def run(self) -> None:
        while not self.done.wait(SAMPLING):
            self.peak = {key: max(value, self.peak[key]) for key, value in memory().items()}

    def __exit__(self, *_) -> None:
        self.done.set()
        self.join()


def measured(work: Callable[[], object]) -> dict:
    """Seconds of `work`, and the memory on top of what is there before it, bytes."""
    # The peak starts anew: that of the imports is higher than what they leave. getrusage's ru_maxrss, otherwise the
    # same figure, cannot do that.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory()
    with Watch() as watch:
        start, processor = time.perf_counter(), time.process_time()
        work()
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    peak = memory()["VmHWM"]
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "peak": peak - before["VmRSS"],
        "peak_absolute": peak,
        "peak_anonymous": watch.peak["RssAnon"] - before["RssAnon"],
        "peak_mapped": watch.peak["RssFile"] - before["RssFile"],
    }


class Line(NamedTuple):
    """A measure of ours, less of which is better, and what is beside it; a line of docs/performance.md.

    Attributes:
        what: was measured.
        unit: of both values.
        beside: another way to the same; empty: there is none.
        limit: the goal: what ours / theirs may be, or ours where nothing is beside it.
    """

    what: str
    unit: str
    ours: float
    beside: str = ""
    theirs: float | None = None
    limit: float | None = None

    @property
    def measure(self) -> float:
        """What the limit is for."""
        if self.theirs is None:
            return self.ours
        return self.ours / self.theirs if self.theirs else math.inf

    @property
    def goal(self) -> str:
        """`<= 2, met`; empty where there is none."""
        if self.limit is None:
            return ""
        unit = f" {self.unit}" if self.theirs is None and self.unit else ""
        limit = f"{self.limit:,.0f}" if self.limit >= 100 else f"{self.limit:.3g}"
        return f"≤ {limit}{unit}, {'met' if self.measure <= self.limit else 'missed'}"

    def value(self, number: float) -> str:
        whole = not number or number >= 100 or not self.unit
        text = f"{number:,.0f}" if whole else f"{number:.2f}" if number >= 0.1 else f"{number:.2g}"
        return f"{text} {self.unit}".strip()

    def ratio(self) -> str:
        """Ours / theirs."""
        return f"{self.measure:.2f}" if self.measure >= 0.1 else f"{self.measure:.2g}"


def report(lines: list[Line], **found: object) -> None:
    """Print the lines and, as the last line, one JSON object."""
    for line in lines:
        print(told(line), flush=True)
    machine = {"cores": os.cpu_count(), "processor": processor(), "load": os.getloadavg()}
    print(json.dumps({"lines": [line._asdict() for line in lines], **found, "machine": machine}))


def told(line: Line) -> str:
    other = f"{line.beside} {line.value(line.theirs)}, ratio {line.ratio()}" if line.theirs is not None else ""
    return f"{line.what}: {'; '.join(filter(None, [line.value(line.ours), other, line.goal]))}"


def processor() -> str:
    """Name of the processor, and what of it matters to speed."""
    fields = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    stripped = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(stripped.get("flags", "").split())
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "bfloat16", "amx_bf16": "AMX"}
    return (
        f"{stripped.get('model name', 'unknown')} ({', '.join(name for flag, name in known.items() if flag in flags)})"
    )
