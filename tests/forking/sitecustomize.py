"""First on a process's path: has a stage, the server that a Snakemake run starts for its stages, and where it is told so a
Snakemake, be a fork of one of the tests' servers (`tests/forked.py`), which have loaded what they import."""

import os
import sys
from pathlib import Path

STAGES, SNAKEMAKE = "COLPIPE_TESTS_STAGES", "COLPIPE_TESTS_SNAKEMAKE"  # names of servers, as in tests/forked.py


def fork() -> tuple[str | None, list[str]]:
    """The server that this process is to be a fork of, None for none, and Python's arguments with `-m`."""
    words = sys.orig_argv[1:]
    if words[:1] == ["-P"] and words[1].endswith("/colpipe/jobs/serve.py"):
        return os.environ.get(STAGES), ["-P", "-m", *words[1:]]
    module = words[words.index("-m") + 1] if "-m" in words else ""
    if module.startswith("colpipe.stages."):
        return os.environ.get(STAGES), words
    return os.environ.get(SNAKEMAKE) if module == "snakemake" else None, words


if fork()[0]:
    sys.path.append(str(Path(__file__).parents[2]))
    from tests import forked

    forked.run(*fork())
