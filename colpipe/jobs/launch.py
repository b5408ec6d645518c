"""Start a stage on the accelerators that this job may use (no torch here).

    python -m colpipe.jobs.launch <stage> --devices N <arguments of the stage>

One process a device: the stage itself, or, of several, torch's launcher, which accelerate knows its processes from. The
devices are those that the scheduler granted; of what is there, each is taken by one job at a time. Where Slurm granted
several nodes, srun starts this on each of them, and the first is where they meet.
"""

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import NamedTuple

from colpipe.jobs.kinds import KINDS
from colpipe.jobs.start import start_stage

RENDEZVOUS = "COLPIPE_MEETING"  # host:port where the processes of several nodes find each other
VISIBLE = {name: kind.visible for name, kind in KINDS.items()}


class LaunchPlan(NamedTuple):
    """How a stage is started.

    Attributes:
        command: Python's arguments.
        environment: variables that are set for it.
    """

    command: list[str]
    environment: dict[str, str]


class Devices(NamedTuple):
    """What a job computes on: a kind of device, and the ids that it has taken, none of which is the CPU's."""

    kind: str
    ids: list[str]
    processes: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m colpipe.jobs.launch", description=__doc__, allow_abbrev=False)
    parser.add_argument("stage", help="name of a module in colpipe/stages/")
    parser.add_argument("--devices", type=int, default=0, help="accelerators of all nodes together (default: 0)")
    parser.add_argument("--parallel", action="store_true", help="the stage trains on several; others use one")
    parser.add_argument("--granted", action="store_true", help="a scheduler granted them: fewer are an error")
    parser.add_argument("--runtime", default="{}", help="runtime settings of the stage, as JSON")
    known, arguments = parser.parse_known_args()
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", 1)) if known.granted and known.parallel else 1
    if nodes > 1 and RENDEZVOUS not in os.environ:
        start_on_all(nodes)
    runtime = json.loads(known.runtime)
    count = known.devices // nodes if known.parallel else min(known.devices, 1)
    if known.devices > 1 and not known.parallel:
        print(f"{known.stage}: uses 1 of {known.devices} devices; --parallel is for stages that train", file=sys.stderr)
    devices = take_devices(known.stage, runtime.get("device", "auto"), count, known.granted)
    plan = plan_launch(known.stage, arguments, runtime, devices, nodes, known.granted)
    os.environ.update(plan.environment)
    for variable in VISIBLE.values():
        if variable in plan.environment:
            print(f"{known.stage}: {variable}={plan.environment[variable]}", file=sys.stderr, flush=True)
    if devices.kind == "cpu" and devices.processes == nodes == 1:
        start_stage(known.stage, plan.command)
    else:
        os.execv(sys.executable, [sys.executable, *plan.command])


def take_devices(stage: str, wanted: str, count: int, from_scheduler: bool) -> Devices:
    """Take a job's devices on this node; `wanted` is its `runtime.device`."""
    kind = wanted if wanted != "auto" else next((kind for kind in VISIBLE if present(kind)), "cpu")
    if count and kind in VISIBLE:
        ids = granted(kind)
        if from_scheduler and len(ids) < count:
            sys.exit(f"{stage}: error: asked for {count} {kind} devices, this job may use {len(ids)}: {ids}")
        count = min(count, len(ids))
        return Devices(kind, take(kind, ids, count), max(1, count))
    if count and from_scheduler and wanted == "auto":
        sys.exit(f"{stage}: error: asked for {count} devices, none is on {os.uname().nodename}")
    if kind == "cpu" and wanted == "auto":
        count = 0  # what an accelerator would have done, one process does on all threads
    return Devices(kind, [], max(1, count))


def plan_launch(
    stage: str, arguments: list[str], runtime: Mapping, devices: Devices, nodes: int, from_scheduler: bool
) -> LaunchPlan:
    """The stage itself, or torch's launcher where it has several processes, which see no devices but those taken."""
    environment, launcher = (
        {"PYTHONSAFEPATH": "1"},
        [],
    )  # a folder called colpipe in the working directory is not this package
    if devices.ids:
        environment[VISIBLE[devices.kind]] = ",".join(devices.ids)
        if from_scheduler:  # what was waited for is used, or the stage says why it cannot be
            runtime = {**runtime, "device": devices.kind}
    if nodes > 1 or devices.processes > 1:
        threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)) // devices.processes
        environment["OMP_NUM_THREADS"] = str(max(1, threads))
        meeting = ["--standalone"]
        if nodes > 1:
            meeting = [f"--nnodes={nodes}", "--rdzv_backend=c10d", f"--rdzv_endpoint={os.environ[RENDEZVOUS]}"]
            meeting += [f"--rdzv_id={os.environ['SLURM_JOB_ID']}"]
        launcher = ["-m", "torch.distributed.run", *meeting, f"--nproc_per_node={devices.processes}"]
    module = ["-m", *(["--"] if launcher else []), f"colpipe.stages.{stage}"]
    return LaunchPlan([*launcher, *module, *arguments, "--runtime", json.dumps(runtime)], environment)


def start_on_all(nodes: int) -> None:
    """Become an srun that starts this very command once on every node of the Slurm job."""
    # Of its own for every job: two on one node must not meet each other's processes.
    port = 20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000
    os.environ[RENDEZVOUS] = f"{hosts(os.environ['SLURM_JOB_NODELIST'])[0]}:{port}"
    once_on_each = ["--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    os.execvp("srun", ["srun", *once_on_each, sys.executable, "-P", "-m", "colpipe.jobs.launch", *sys.argv[1:]])


def hosts(nodes: str) -> list[str]:
    """`node[1-3]` as Slurm writes it: its names one by one."""
    command = ["scontrol", "show", "hostnames", nodes]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def present(kind: str) -> list[str]:
    """Ids of the devices of a kind on this machine: a container may have file 5 alone, and counts from 0."""
    return [str(number) for number in range(len(glob(KINDS[kind].files)))]


def granted(kind: str) -> list[str]:
    """Ids of those that this job may use: as its environment says, as Slurm says, or all that are there.

    Slurm sets CUDA's variable and none for Ascend; which of those it granted is in the job's description.
    """
    if VISIBLE[kind] in os.environ:
        return [name for name in os.environ[VISIBLE[kind]].split(",") if name]
    if kind == "npu" and (job := os.environ.get("SLURM_JOB_ID")) and shutil.which("scontrol"):
        command = ["scontrol", "--details", "show", "job", job]
        text = subprocess.run(command, capture_output=True, text=True).stdout
        found = re.findall(r"Nodes=(\S+) .*GRES=\S*npu\S*\(IDX:([\d,-]+)\)", text)
        here = os.environ.get("SLURMD_NODENAME")
        for nodes, ranges in found:
            if len(found) == 1 or here in hosts(nodes):
                return numbers(ranges)
    return present(kind)


def numbers(ranges: str) -> list[str]:
    """`0-2,5` as Slurm writes it: 0, 1, 2 and 5."""
    found = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        found += [str(number) for number in range(int(first), int(last or first) + 1)]
    return found


def take(kind: str, ids: list[str], count: int) -> list[str]:
    """Take `count` of the devices for this job alone, and wait until as many are free.

    A device is a locked file that this process hands on to the stage; the lock ends with the last process that has it.
    """
    home = Path(tempfile.gettempdir()) / f"colpipe-devices-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    announced = False
    while True:
        # One job at a time looks for free devices, or two could each hold half of what they want and wait for the other.
        with open(home / "turn", "w") as turn:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX)
            except OSError as error:
                sys.exit(
                    f"error: {home}: the file system has no locks ({error.strerror}): set TMPDIR to a local folder"
                )
            locks = [
                (name, lock) for name in ids if (lock := _lock(home / f"{kind}-{name.replace('/', '-')}")) is not None
            ]
            for _, lock in locks[count:]:
                os.close(lock)
        if len(locks) >= count:
            return [name for name, _ in locks[:count]]
        for _, lock in locks:
            os.close(lock)
        if not announced:
            print(f"waits for {count} of {kind} {', '.join(ids)}: {len(locks)} free", file=sys.stderr, flush=True)
        announced = True
        time.sleep(1)


def _lock(path: Path) -> int | None:
    """A locked file that children inherit; None where another job has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.set_inheritable(lock, True)
    return lock


if __name__ == "__main__":
    main()
