"""A Slurm of one node: the controller here, the node in a network namespace from which only the controller is reached.

Needs root and Debian's packages slurm-wlm, munge and iproute2; its devices are copies of /dev/null.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "ip", "nsenter", "unshare")
NAMESPACE, HERE, THERE = "colpipe-node", "10.99.0.1", "10.99.0.2"

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
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
GresTypes=gpu,npu
NodeName=node NodeHostname={host} NodeAddr={there} CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 \
 RealMemory={memory} Gres=gpu:h100:2,npu:ascend910b:2
PartitionName=cpu Nodes=node Default=YES
PartitionName=gpu Nodes=node
PartitionName=npu Nodes=node
PartitionName=urgent Nodes=node PriorityTier=10 PreemptMode=OFF
"""
DEVICES = """
AutoDetect=off
NodeName=node Name=gpu Type=h100 Flags=nvidia_gpu_env File={home}/gpu[0-1]
NodeName=node Name=npu Type=ascend910b File={home}/npu[0-1]
"""
NO_CGROUPS = "CgroupAutomount=no\nConstrainCores=no\nConstrainDevices=no\n"  # they need a machine that systemd started


def why_not() -> str | None:
    """Why no Slurm can be started here."""
    if os.geteuid():
        return "Slurm is started by root"
    if missing := [name for name in COMMANDS if not shutil.which(name)]:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge iproute2"
    return None


class Slurm:
    """Started when made; `environment` has its commands, and Snakemake, find it."""

    def __init__(self, home: Path):
        self.home = home
        self.only = {"SLURM_CONF": str(home / "settings/slurm.conf")}
        self.environment = {**os.environ, **self.only}
        self._processes: list[subprocess.Popen] = []
        for name in ("settings", "controller", "spool", "munge"):
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
        mounted = f"mount --bind {home}/settings /etc/slurm && exec slurmd -N node -D"
        self._start("nsenter", f"--net=/run/netns/{NAMESPACE}", "unshare", "--mount", "sh", "-c", mounted)
        self._wait(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%t", check=False), "slurmd")

    def _connect(self) -> None:
        for name in ("gpu0", "gpu1", "npu0", "npu1"):
            os.mknod(self.home / name, 0o666 | 0o020000, os.makedev(1, 3))
        Path("/etc/slurm").mkdir(exist_ok=True)
        for command in (
            f"netns add {NAMESPACE}",
            f"link add colpipe0 type veth peer name colpipe1 netns {NAMESPACE}",
            f"address add {HERE}/30 dev colpipe0",
            "link set colpipe0 up",
            f"-n {NAMESPACE} address add {THERE}/30 dev colpipe1",
            f"-n {NAMESPACE} link set colpipe1 up",
            f"-n {NAMESPACE} link set lo up",
        ):
            subprocess.run(["ip", *command.split()], check=True)

    def _write_settings(self) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 8 // 10 // 2**20
        values = {"home": self.home, "host": socket.gethostname(), "here": HERE, "there": THERE, "memory": memory}
        values |= {"controller_port": _free_port(), "node_port": _free_port()}
        for name, text in (("slurm", SETTINGS), ("gres", DEVICES), ("cgroup", NO_CGROUPS)):
            (self.home / "settings" / f"{name}.conf").write_text(text.format(**values))

    def _start(self, *command: str) -> None:
        log = open(self.home / f"{command[0]}.out", "w")
        environment = self.environment if command[0] != "nsenter" else os.environ
        self._processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def _wait(self, ready, name: str) -> None:
        for _ in range(300):
            if ready():
                return
            time.sleep(0.1)
        logs = "\n".join(path.read_text()[-2000:] for path in self.home.glob("*.out"))
        raise AssertionError(f"{name} did not start:\n{logs}")

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(30)
        subprocess.run(["ip", "link", "delete", "colpipe0"], check=True)
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)

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


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((HERE, 0))
        return listening.getsockname()[1]
