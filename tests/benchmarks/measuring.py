"""Seconds and memory of a piece of work in this process. Linux only (/proc)."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

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
