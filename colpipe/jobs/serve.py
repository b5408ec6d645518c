"""The server whose forks are the jobs of one Snakemake run: it has their libraries loaded, and nothing of colpipe.

    python serve.py <name> <owner>

It is started by `start.py`, and not as a module: what a fork imports of colpipe is then the code as it is now. It listens
on an abstract socket of this name, and ends when the owner, a process, ends; jobs that still run stay.

A connection is a job. For each the server forks a process that watches over it, and that forks the job: server, watchers and
jobs end without each other, except that a job ends with its watcher or when its connection is closed. No thread is started
before a fork (OpenBLAS ends its own before one), and no device is touched.
"""

import contextlib
import ctypes
import errno
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
from typing import NamedTuple

# What stages import that takes long. One that is missing is loaded by the stages that want it.
LIBRARIES = (
    "torch",
    "torch.distributed.checkpoint.state_dict",
    "transformers.modeling_utils",
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen3.modeling_qwen3",
    "trl.trainer.sft_trainer",
    "datasets",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "scipy.optimize",
    "rouge_score.rouge_scorer",
    "lm_eval.models.huggingface",
    "matplotlib.pyplot",
    "pydantic.main",
    "pydantic.types",
    "pydantic.functional_validators",
    "yaml",
    "einops",
    "jinja2",
    "markdown_it",
    "huggingface_hub.repocard",
)
PARENT_DEATH = 1  # prctl's PR_SET_PDEATHSIG
NAME = 15  # prctl's PR_SET_NAME
STARTED = b"s"  # as in start.py
TAKEN = 3  # as in start.py


class Job(NamedTuple):
    command: list[str]
    """Python's arguments: options, `-m`, a module, the module's arguments"""
    cwd: str
    umask: int
    environment: dict[str, str]
    files: list[int]
    """its standard input, output and error"""


def main() -> None:
    listener, ends = listen(sys.argv[1], int(sys.argv[2]))
    load(LIBRARIES)
    run(serve(listener, ends))


def listen(name: str, owner: int) -> tuple[socket.socket, int]:
    """A socket of this name, and a file that can be read when the owner ends. Ends this process where another has the name,
    or the owner has ended."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ends = os.pidfd_open(owner)
        listener.bind(f"\0{name}")
        listener.listen(128)
    except OSError as error:
        sys.exit(TAKEN if error.errno == errno.EADDRINUSE else 1)
    return listener, ends


def load(libraries: tuple[str, ...]) -> None:
    """Import what is there of these, for all forks."""
    for library in libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()  # a fork's collector then leaves the pages alone that it shares


def serve(listener: socket.socket, ends: int) -> Job:
    """Fork a job for each connection, until the owner ends. Returns a job in the process that is to run it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for watchers
    while True:
        ready, _, _ = select.select([listener.fileno(), ends], [], [])
        if ends in ready:
            os._exit(0)  # at once: it has nothing to put in order
        connection, _ = listener.accept()
        if is_mine(connection) and not os.fork():
            listener.close()
            os.close(ends)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return watch(connection)
        connection.close()


def is_mine(connection: socket.socket) -> bool:
    """Whether the process at the other end is this user's: abstract names have no permissions."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user == os.getuid()


def watch(connection: socket.socket) -> Job:
    """Fork a connection's job, pass signals on to it, tell how it ended; end it when the connection is closed. Returns
    in the process of the job only."""
    job = read_request(connection)
    watcher = os.getpid()
    process = os.fork()
    if not process:
        connection.close()
        libc = ctypes.CDLL(None)
        libc.prctl(PARENT_DEATH, signal.SIGKILL)
        libc.prctl(NAME, job.command[job.command.index("-m") + 1].rpartition(".")[2].encode())
        if os.getppid() != watcher:
            os._exit(1)
        return job
    for file in job.files:
        os.close(file)
    ended = os.pidfd_open(process)
    with contextlib.suppress(OSError):
        connection.sendall(STARTED)
    while True:
        ready, _, _ = select.select([connection.fileno(), ended], [], [])
        if ended in ready:
            break
        try:
            numbers = connection.recv(16)
        except OSError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            os.kill(process, number)
        if not numbers:
            break
    status = os.waitpid(process, 0)[1]
    with contextlib.suppress(OSError):
        connection.sendall(status.to_bytes(4, "little"))
    os._exit(0)


def read_request(connection: socket.socket) -> Job:
    """The job that a connection asks for. A client that is gone before it has asked ends this process."""
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    size, body = int.from_bytes(head, "little"), b""
    while len(body) < size and (part := connection.recv(size - len(body))):
        body += part
    if len(head) < 8 or len(files) < 3 or len(body) < size:
        os._exit(1)
    return Job(**json.loads(body), files=files)


def run(job: Job) -> None:
    """Run a job as `python <command>` does, in a process of its own; the interpreter's end is then the job's."""
    take_over(job)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def take_over(job: Job) -> None:
    """Have a job's files, folder, environment and arguments."""
    for number, file in enumerate(job.files):
        os.dup2(file, number)
    for file in job.files:
        if file > 2:
            os.close(file)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
    os.chdir(job.cwd)
    os.umask(job.umask)
    os.environ.clear()
    os.environ.update(job.environment)
    importlib.invalidate_caches()
    at = job.command.index("-m") + 1
    sys.orig_argv[:] = [sys.executable, *job.command]
    sys.argv[:] = job.command[at:]


if __name__ == "__main__":
    main()
