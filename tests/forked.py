"""Processes of the tests as forks of one that has their libraries loaded, which takes most of their time.

    [*forked.python("snakemake"), "-m", "snakemake", ...]      in place of [sys.executable, "-m", "snakemake", ...]

Each process of pytest has its own servers (`colpipe/jobs/serve.py`), one for Snakemake and one for stages, which end with
it. A fork has the arguments, files, folder, environment and search path of the process that asks for it; that passes
signals on, and ends as the fork does. What is not as in a process of its own: memory, the tree of processes, the seed of
hashes, what libraries read in the environment as they are imported, and what is imported. Tests of these start
`sys.executable`.
"""

import contextlib
import functools
import importlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

JOBS = Path(__file__).parents[1] / "colpipe" / "jobs"
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
    "pydantic._internal._docs_extraction",
)


@functools.cache
def python(kind: str) -> list[str]:
    """What stands for `sys.executable` in a command with `-m`; starts this process's server, of "snakemake" or "stages"."""
    name, program = f"colpipe-tests-{kind}-{os.getpid()}", [sys.executable, "-P", __file__]
    _, start = server_and_client()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.Popen(
        [*program, SERVE, kind, name, str(os.getpid())],
        env={**start.LIBRARIES, **environment, start.OFFLINE: "1", **start.SERVER_ONLY, "OMP_NUM_THREADS": "1"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return [*program, name]


def server_and_client():
    """The modules serve and start, without a package: none of colpipe is to be loaded in a server."""
    sys.path.insert(0, str(JOBS))
    try:
        return importlib.import_module("serve"), importlib.import_module("start")
    finally:
        sys.path.remove(str(JOBS))


def main() -> None:
    serve, start = server_and_client()
    if sys.argv[1] == SERVE:
        kind, name, owner = sys.argv[2:]
        listener, ends = serve.listen(name, int(owner))
        serve.load(SNAKEMAKE if kind == "snakemake" else serve.LIBRARIES)
        job = serve.serve(listener, ends)
        imitate(job)
        serve.run(job)
    else:
        status = start.run_in_fork(connection(sys.argv[1]), sys.argv[2:])
        start.end_as(status) if status is not None else sys.exit("tests/forked.py: the server has ended")


def connection(name: str, seconds: float = 120) -> socket.socket:
    """To a server that may be starting."""
    end = time.monotonic() + seconds
    while True:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(f"\0{name}")
            return server
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def imitate(job) -> None:
    """Have a fork look for modules where a Python of its own would, in its folder and on PYTHONPATH first, and have it see
    as its folder what was another's when Snakemake was imported."""
    options = job.command[: job.command.index("-m")]
    safe = "-P" in options or job.environment.get("PYTHONSAFEPATH")
    named = job.environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [*([] if safe else [job.cwd]), *(os.path.join(job.cwd, place) for place in named if place)]
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ImportError):
        importlib.import_module("sitecustomize")
    if "snakemake.workflow" in sys.modules:
        sys.modules["snakemake.workflow"].Workflow._rundir = job.cwd


if __name__ == "__main__":
    main()
