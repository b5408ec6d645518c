"""One module per rule, run as `python -m colpipe.stages.<rule>`."""

import os
import sys

import colpipe.jobs.start as start

# Read by the libraries when they are imported, so they are set before any stage imports one.
for name, value in start.LIBRARIES.items():
    os.environ.setdefault(name, value)
if not any(f"colpipe.stages.{start.FETCH}" in word for word in sys.orig_argv):
    os.environ[start.OFFLINE] = "1"  # only the fetch stages may use a network
