"""Processes of the tests as forks of one that has their libraries loaded, which takes most of their time.

    [*forked.python("snakemake"), "-m", "snakemake", ...]      in place of [sys.executable, "-m", "snakemake", ...]
    env=forked.environment()                                   for stages that the process starts

Each process of pytest has its own servers (`colpipe/jobs/serve.py`), one for Snakemake and one for stages, which end with
it. A fork has the arguments, files, folder, environment and search path of the process that asks for it; that passes
signals on, and ends as the fork does. What is not as in a process of its own: memory, the tree of processes, the seed of
hashes, what libraries read in the environment as they are imported, and what is imported. Tests of these start
`sys.executable`.
"""

import atexit
import contextlib
import functools
import importlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOBS = Path(__file__).parents[1] / "colpipe" / "jobs"
FORKING = Path(__file__).with_name("forking")  # a folder with what has a stage be a fork
STAGES, SNAKEMAKE_ITSELF = "COLPIPE_TESTS_STAGES", "COLPIPE_TESTS_SNAKEMAKE"  # names of servers, for what looks there
SERVE = "--serve"
SNAKEMAKE = (  # what it imports that takes long, before and as it reads a Snakefile of colpipe's
    "snakemake.cli",
    "snakemake.report.html_reporter",
    "snakemake_logger_plugin_rich.handler",
    "smart_open",
    "jsonschema",
    "requests",
    "docutils.parsers.rst.directives.images",
    "rich.markdown",
    "rich.progress",
    "PIL.Image",
    "pydantic.main",
    "pydantic.types",
    "pydantic.functional_validators",
)


@functools.cache
def python(kind: str) -> list[str]:
    """What stands for `sys.executable` in a command with `-m`; starts this process's server, of "snakemake" or "stages"."""
    # A file in a folder of its own: processes of a network namespace of their own find it, too.
    name, program = f"{_folder()}/{kind}", [sys.executable, "-P", __file__]
    _, start = server_and_client()
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.Popen(
        [*program, SERVE, kind, name, str(os.getpid())],
        env={**start.LIBRARIES, **inherited, start.OFFLINE: "1", **start.SERVER_ONLY, "OMP_NUM_THREADS": "1"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return [*program, name]


@functools.cache
def _folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="colpipe-tests-")
    atexit.register(folder.cleanup)
    return folder.name


def environment(*path: str | os.PathLike, snakemake: bool = False) -> dict[str, str]:
    """This process's, in which stages, and the servers of stages, that any process starts are forks of this one's server.

    Args:
        path: where modules are looked for first; without any, as in this process.
        snakemake: whether each Snakemake is a fork, too.
    """
    return {**os.environ, **variables(*path, snakemake=snakemake)}


def variables(*path: str | os.PathLike, snakemake: bool = False) -> dict[str, str]:
    """What `environment` sets."""
    places = list(map(str, path)) or [place for place in [os.environ.get("PYTHONPATH")] if place]
    servers = {STAGES: python("stages")[-1]} | ({SNAKEMAKE_ITSELF: python("snakemake")[-1]} if snakemake else {})
    return {"PYTHONPATH": os.pathsep.join([str(FORKING), *places]), **servers}


def server_and_client():
    """The modules serve and start, without a package: none of colpipe is to be loaded in a server."""
    sys.path.insert(0, str(JOBS))
    try:
        return importlib.import_module("serve"), importlib.import_module("start")
    finally:
        sys.path.remove(str(JOBS))


def main() -> None:
    if sys.argv[1] == SERVE:
        serve, _ = server_and_client()
        kind, name, owner = sys.argv[2:]
        listener, ends = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), os.pidfd_open(int(owner))
        listener.bind(name)
        listener.listen(128)
        serve.load(SNAKEMAKE if kind == "snakemake" else serve.LIBRARIES)
        job = serve.serve(listener, ends)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        imitate(job)
        program = job.command[job.command.index("-m") + 1]
        if program.endswith(".py"):  # another server
            serve.take_over(job)
            runpy.run_path(program, run_name="__main__")
        else:
            serve.run(job)
    else:
        run(sys.argv[1], sys.argv[2:])


def run(server: str, command: list[str]) -> None:
    """Have a fork of this server run `python <command>`, and end as it ends."""
    _, start = server_and_client()
    status = start.run_in_fork(connection(server), command)
    start.end_as(status) if status is not None else sys.exit("tests/forked.py: the server has ended")


def connection(name: str, seconds: float = 120) -> socket.socket:
    """To a server that may be starting."""
    end = time.monotonic() + seconds
    while True:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(name)
            return server
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def imitate(job) -> None:
    """Have a fork look for modules where a Python of its own would, in its folder and on PYTHONPATH first, and have it see
    as its folder what was another's when Snakemake was imported."""
    options = job.command[: job.command.index("-m")]
    safe = "-P" in options or job.environment.get("PYTHONSAFEPATH")
    named = job.environment.get("PYTHONPATH", "").split(os.pathsep)
    places = [os.path.join(job.cwd, place) for place in named if place and place != str(FORKING)]
    sys.path[:0] = [*([] if safe else [job.cwd]), *places]
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ImportError):
        importlib.import_module("sitecustomize")
    if "snakemake.workflow" in sys.modules:
        sys.modules["snakemake.workflow"].Workflow._rundir = job.cwd


if __name__ == "__main__":
    main()
