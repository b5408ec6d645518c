"""What a job uses, over all of its attempts: seconds, tokens, FLOPs, memory (no torch here).

Models count what goes through them (`training/counting.py`). Every process of a job keeps its counts in the job's state
folder, at least once a second and whenever its in-step state is saved, so that what a killed attempt used is not forgotten.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from colpipe.jobs.kinds import KINDS
from colpipe.jobs.state import read_record, write_record

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
FOLDER = "used"  # in the state folder of a job
SECONDS = 1.0  # between two records of a running attempt
counted: dict[str, float] = {"tokens": 0, "flops": 0}  # by this process


def count(flops: float, tokens: int = 0) -> None:
    """Add FLOPs, and tokens that went through a model."""
    counted["flops"] += flops
    counted["tokens"] += tokens


class Ledger:
    """The account of one attempt of a job, in one of its processes.

    Attributes:
        folder: where the accounts of all attempts and processes are.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rank, self.processes = (
            int(os.environ.get(name, value)) for name, value in (("RANK", 0), ("WORLD_SIZE", 1))
        )
        self.started, self.begun = time.time(), time.monotonic()  # clocks can be set; this one only goes forward
        self.kept, self.before = self.begun, dict(counted)
        number = len(list(folder.glob(f"{self.rank}-*.json")))
        self.path = folder / f"{self.rank}-{number}.json"

    def keep(self, now: bool = True) -> None:
        """Write down what was used so far; where it need not be `now`, only if the last record is a second old."""
        if not now and time.monotonic() - self.kept < SECONDS:
            return
        self.kept = time.monotonic()
        with contextlib.suppress(OSError):  # a full disk stops the job where it needs the room
            self.folder.mkdir(parents=True, exist_ok=True)
            write_record(self.path, self._used())

    def _used(self) -> dict:
        device, device_memory = _accelerator()
        return {
            "started": self.started,
            "seconds": time.monotonic() - self.begun,
            "processes": self.processes,
            "device": device,
            **{name: value - self.before[name] for name, value in counted.items()},
            "peak_memory": peak_memory(),
            "peak_device_memory": device_memory,
        }

    def total(self) -> dict:
        """What all attempts used together, this one until now.

        Returns:
            `seconds`, `device_seconds` (processes × seconds), `tokens` and `flops` of all processes, `peak_memory_mb` and
            `peak_device_memory_mb` (0 without an accelerator) of the process that had most, `device`, `processes`,
            `attempts`.
        """
        accounts = {path.name: account for path in self.folder.glob("*.json") if (account := read_record(path))}
        accounts[self.path.name] = self._used()
        attempts = [account for name, account in accounts.items() if name.startswith("0-")]
        return {
            "started": min(account["started"] for account in attempts),
            "seconds": round(sum(account["seconds"] for account in attempts), 1),
            "device_seconds": round(sum(account["seconds"] * account["processes"] for account in attempts), 1),
            "tokens": sum(account["tokens"] for account in accounts.values()),
            "flops": sum(account["flops"] for account in accounts.values()),
            "peak_memory_mb": round(max(account["peak_memory"] for account in accounts.values()) / 1e6),
            "peak_device_memory_mb": round(max(account["peak_device_memory"] for account in accounts.values()) / 1e6),
            "device": accounts[self.path.name]["device"],
            "processes": self.processes,
            "attempts": len(attempts),
        }


def read_account(folder: Path) -> dict | None:
    """A finished job's `run.json`; None where it is missing, damaged, or of a version that kept no account."""
    try:
        run = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return None
    return run if "flops" in run else None


def peak_memory() -> int:
    """Bytes of main memory that this process held at its peak.

    Not `getrusage`'s: that begins with what the parent held. Of a fork of the shared start (`start.py`), the loaded
    libraries count, though their pages are shared.
    """
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _accelerator() -> tuple[str, int]:
    """Name of the device that this process used, and the bytes that were taken of its memory at the peak."""
    torch = sys.modules.get("torch")
    for kind in KINDS:
        backend = getattr(torch, kind, None)
        if backend is not None and backend.is_initialized():
            return backend.get_device_name(), backend.max_memory_allocated()
    return "cpu", 0
