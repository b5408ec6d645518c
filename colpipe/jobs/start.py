"""Start a stage: on its own, or as a fork of a process that has its libraries loaded (no torch here).

    python -m colpipe.jobs.start <stage> <arguments of the stage>

Loading the libraries takes seconds, which is more than many stages do. Where Snakemake says so (`share_start` of
`colpipe/pipeline/snakefile.py`), its jobs on this machine are forks of one server, `serve.py`, which the first of them
starts and which ends with Snakemake. This process stays as the job's: it hands its files, folder and environment on,
passes signals on, and ends as the fork ends. Killed, it takes the fork with it. Where no server can be had, it becomes
the stage itself.

Variables of the environment may be read when a library is imported, so a server serves jobs whose environment is its own.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

SHARED = "COLPIPE_SHARED_START"  # number of the Snakemake process whose jobs share their start
OFFLINE = "HF_HUB_OFFLINE"
# How libraries are to behave, read when they are imported; `colpipe/stages/__init__.py` sets them for stages.
LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
SERVER_ONLY = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # pyarrow: no thread may run before a fork
FETCH = "fetch_"  # stages that use a network, which the libraries of a server are told not to
OF_EACH_SHELL = {"_", "SHLVL", "PWD", "OLDPWD", "PYTHONSAFEPATH"}  # no library reads them
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STARTED = b"s"  # what a server says first; then the fork's wait status, 4 bytes
TAKEN = 3  # exit status of a server whose name another has
PAUSE = 0.01  # seconds between attempts to reach a server that is starting


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python -m colpipe.jobs.start <stage> <arguments of the stage>")
    stage, *arguments = sys.argv[1:]
    start_stage(stage, ["-P", "-m", f"colpipe.stages.{stage}", *arguments])


def start_stage(stage: str, command: list[str]) -> None:
    """Become `python <command>`, which runs the stage, or have a fork of the server run it and end as that ends."""
    if os.environ.get(SHARED, "").isdecimal() and not stage.startswith(FETCH):
        server = reach_server(int(os.environ[SHARED]))
        status = None if server is None else run_in_fork(server, command)
        if status is not None:
            end_as(status)
        print(f"{stage}: there is no shared start: the stage loads its libraries itself", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, *command])


def reach_server(owner: int) -> socket.socket | None:
    """A connection to the server of this environment, started if need be; None if that ends at once.

    Args:
        owner: number of the process whose jobs it serves, and with which it ends.
    """
    # In Linux's abstract namespace: no file is left behind, and of several that start at once, one gets the name.
    address = f"\0colpipe-start-{key_of_environment(owner)}"
    started = None
    while True:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(address)
            return server if is_mine(server) else None
        except ConnectionRefusedError:
            server.close()
        except OSError:
            return None  # a system that knows no such names
        # Another may have taken the name and not listen yet, or have ended since: then this asks for a server again.
        if started is None or started.poll() == TAKEN:
            started = start_server(address, owner)
        elif started.poll() is not None:
            return None
        time.sleep(PAUSE)


def key_of_environment(owner: int) -> str:
    """32 hex digits for all that a server's imports may depend on, and for whose it is."""
    variables = sorted((name, value) for name, value in os.environ.items() if name not in OF_EACH_SHELL)
    return hashlib.sha256(json.dumps([os.getuid(), owner, sys.executable, variables]).encode()).hexdigest()[:32]


def start_server(address: str, owner: int):
    """A server of this environment, which belongs to no terminal and to no job; gives its process."""
    import subprocess  # spared the other jobs

    program = str(Path(__file__).with_name("serve.py"))
    return subprocess.Popen(
        [sys.executable, "-P", program, address[1:], str(owner)],
        env={**LIBRARIES, **os.environ, OFFLINE: "1", **SERVER_ONLY},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def is_mine(connection: socket.socket) -> bool:
    """Whether the process at the other end is this user's: abstract names have no permissions."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user == os.getuid()


def run_in_fork(server: socket.socket, command: list[str]) -> int | None:
    """Have a fork of the server run `python <command>`, and wait for it: its wait status; None if it did not begin."""
    request = {"command": command, "cwd": os.getcwd(), "umask": umask(), "environment": dict(os.environ)}
    body = json.dumps(request).encode()
    try:
        socket.send_fds(server, [len(body).to_bytes(8, "little")], [0, 1, 2])
        server.sendall(body)
        if server.recv(1) != STARTED:  # until then, a signal ends this process, and that the fork
            return None
    except OSError:
        return None
    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda given, _: pass_on(server, given))
    signal.signal(signal.SIGTSTP, lambda *_: pause(server))
    status = b""
    with contextlib.suppress(OSError):
        status = server.recv(4, socket.MSG_WAITALL)
    return int.from_bytes(status, "little") if len(status) == 4 else signal.SIGKILL  # who watches the fork was killed


def umask() -> int:
    """The mask of new files' permissions."""
    found = os.umask(0o077)
    os.umask(found)
    return found


def pass_on(server: socket.socket, number: int) -> None:
    """Have a signal sent to the fork; one that has ended needs none."""
    with contextlib.suppress(OSError):
        server.send(bytes([number]))


def pause(server: socket.socket) -> None:
    """Stop with the fork, as a terminal asks for, and go on with it."""
    pass_on(server, signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    pass_on(server, signal.SIGCONT)


def end_as(status: int) -> None:
    """End as a process of this wait status did: with its exit status, or by its signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


if __name__ == "__main__":
    main()
