"""Hashes of files and of JSON values (no torch here)."""

import hashlib
import json
from pathlib import Path

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def key_of(value: object) -> str:
    """16 hex digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def ordered_key_of(value: object) -> str:
    """The same, where the order of a mapping's keys counts."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
