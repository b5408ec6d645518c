"""One module per rule, run as `python -m colpipe.stages.<rule>`."""

import os
import sys

# Read by the libraries when they are imported, so they are set before any stage imports one.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
if not any("colpipe.stages.fetch_" in word for word in sys.orig_argv):
    os.environ["HF_HUB_OFFLINE"] = "1"  # only the fetch stages may use a network
