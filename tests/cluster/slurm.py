"""A small Slurm: the controller here, each of two nodes in a network namespace that reaches nothing but this Slurm.

Needs root and Debian's packages slurm-wlm, munge and iproute2; its devices are copies of /dev/null.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.conftest import may_separate

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "ip", "nsenter", "unshare")
HERE, NODES = "10.99.0.1", {"node-1": "10.99.0.2", "node-2": "10.99.0.3"}

SETTINGS = """
ClusterName=colpipe
SlurmctldHost={host}({here})
AuthType=auth/munge
AuthInfo=socket={home}/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={home}/controller
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
ReturnToService=2
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
GresTypes=gpu,npu
NodeName=DEFAULT CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 \
 RealMemory={memory} Gres=gpu:h100:2,npu:ascend910b:2
{nodes}
PartitionName=cpu Nodes=node-1 Default=YES
PartitionName=gpu Nodes=node-1
PartitionName=npu Nodes=node-1
PartitionName=urgent Nodes=node-1 PriorityTier=10 PreemptMode=OFF
PartitionName=pair Nodes=ALL
"""
DEVICES = """
AutoDetect=off
NodeName=node-[1-2] Name=gpu Type=h100 Flags=nvidia_gpu_env File={home}/gpu[0-1]
NodeName=node-[1-2] Name=npu Type=ascend910b File={home}/npu[0-1]
"""
NO_CGROUPS = "CgroupAutomount=no\nConstrainCores=no\nConstrainDevices=no\n"  # they need a machine that systemd started


def why_not() -> str | None:
    """Why no Slurm can be started here."""
    if not may_separate("net", "mount", "uts"):
        return "Slurm's nodes are namespaces, which may not be made here"
    if missing := [name for name in COMMANDS if not shutil.which(name)]:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge iproute2"
    return None


class Slurm:
    """Started when made; `environment` has its commands, and Snakemake, find it."""

    def __init__(self, home: Path):
        self.home = home
        self.environment = {**os.environ, "SLURM_CONF": str(home / "settings/slurm.conf")}
        self._processes: list[subprocess.Popen] = []
        for name in ("settings", "controller", "munge", *(f"spool-{node}" for node in NODES)):
            (home / name).mkdir(parents=True)
        for folder in (home, *home.parents):
            folder.chmod(folder.stat().st_mode | 0o011)  # munge asks for it
        self._connect()
        self._write_settings()
        munge = home / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        self._wait(lambda: (munge / "socket").exists(), "munged")
        self._start("slurmctld", "-D", "-i")
        mount = f"mount --bind {home}/settings /etc/slurm && mount --bind {home}/hosts /etc/hosts"
        for node in NODES:
            begin = ["unshare", "--mount", "--uts", "sh", "-c", f"hostname {node} && {mount} && exec slurmd -D"]
            self._start("nsenter", f"--net=/run/netns/colpipe-{node}", *begin, name=node)
        ready = ["idle"] * len(NODES)
        self._wait(
            lambda: self.ask("sinfo", "-h", "-N", "-p", "pair", "-o", "%t", check=False).split() == ready, "slurmd"
        )

    def _connect(self) -> None:
        for name in ("gpu0", "gpu1", "npu0", "npu1"):
            os.mknod(self.home / name, 0o666 | 0o020000, os.makedev(1, 3))
        Path("/etc/slurm").mkdir(exist_ok=True)
        commands = ["link add colpipe0 type bridge", f"address add {HERE}/24 dev colpipe0", "link set colpipe0 up"]
        for number, (node, address) in enumerate(NODES.items(), 1):
            commands += [
                f"netns add colpipe-{node}",
                f"link add colpipe{number} type veth peer name inside netns colpipe-{node}",
                f"link set colpipe{number} master colpipe0 up",
                f"-n colpipe-{node} address add {address}/24 dev inside",
                f"-n colpipe-{node} link set inside up",
                f"-n colpipe-{node} link set lo up",
            ]
        _disconnect(check=False)  # what tests that were killed have left
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        names = "".join(f"{address} {node}\n" for node, address in NODES.items())
        (self.home / "hosts").write_text(f"127.0.0.1 localhost\n{names}")

    def _write_settings(self) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 8 // 10 // 2**20
        nodes = "\n".join(f"NodeName={node} NodeAddr={address}" for node, address in NODES.items())
        values = {"home": self.home, "host": socket.gethostname(), "here": HERE, "nodes": nodes, "memory": memory}
        values |= {"controller_port": _free_port(), "node_port": _free_port()}
        for name, text in (("slurm", SETTINGS), ("gres", DEVICES), ("cgroup", NO_CGROUPS)):
            (self.home / "settings" / f"{name}.conf").write_text(text.format(**values))

    def _start(self, *command: str, name: str | None = None) -> None:
        log = open(self.home / f"{name or command[0]}.out", "w")
        environment = self.environment if command[0] != "nsenter" else os.environ
        self._processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def _wait(self, ready, name: str) -> None:
        for _ in range(1200):
            if ready():
                return
            time.sleep(0.1)
        logs = "\n".join(path.read_text()[-2000:] for path in self.home.glob("*.out"))
        self.stop()
        raise AssertionError(f"{name} did not start:\n{logs}")

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        _disconnect()

    def ask(self, *command: str, check: bool = True) -> str:
        """What one of its commands prints."""
        return subprocess.run(command, env=self.environment, check=check, capture_output=True, text=True).stdout

    def jobs(self, folder: Path) -> list[dict[str, str]]:
        """`scontrol show job` of those that Snakemake submitted from a folder, ended ones too: their fields, and `rule`."""
        found = []
        for text in self.ask("scontrol", "--oneliner", "show", "job").splitlines():
            job = dict(field.partition("=")[::2] for field in text.split() if "=" in field)
            if job.get("WorkDir") == str(folder):
                job["rule"] = job["Comment"].removeprefix("rule_").partition("_wildcards_")[0]
                found.append(job)
        return found


def _disconnect(check: bool = True) -> None:
    """Take the nodes' network away, and whatever still runs there."""
    errors = None if check else subprocess.DEVNULL
    for number, node in enumerate(NODES, 1):
        left = subprocess.run(["ip", "netns", "pids", f"colpipe-{node}"], capture_output=True, text=True).stdout
        for process in left.split():
            os.kill(int(process), signal.SIGKILL)
        subprocess.run(["ip", "link", "delete", f"colpipe{number}"], check=check, stderr=errors)
        subprocess.run(["ip", "netns", "delete", f"colpipe-{node}"], check=check, stderr=errors)
    subprocess.run(["ip", "link", "delete", "colpipe0"], check=check, stderr=errors)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((HERE, 0))
        return listening.getsockname()[1]
