"""What users are told about errors that come from the machine."""

import errno
import re
from pathlib import Path

import pytest
import torch

from colpipe.errors import advice_on


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, "x"), "no space left on the disk of out: free some and run again"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left on the disk of out"),
        (RuntimeError("basic_ios::clear: iostream error"), "no space left on the disk of out"),
        (MemoryError(), "out of memory: lower runtime.micro_batch, .*max_length or batch_size, or ask for more"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            r"out of memory: .*\(OutOfMemoryError: CUDA",
        ),
        (RuntimeError("NPU out of memory. Tried to allocate 2 GiB"), "out of memory: lower"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
            "out of memory: lower",
        ),
        (ImportError("a.so: failed to map segment from shared object"), "out of memory: lower"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory: lower"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a/model"),
            "a/model: No such file or directory: ",
        ),
        (OSError(errno.EROFS, "Read-only file system", "out/x"), "out/x: Read-only file system: .*cannot be written"),
        (ValueError("no such thing"), None),
    ],
)
def test_advice(error, advice):
    found = advice_on(error, Path("out"))
    assert found is None if advice is None else re.match(advice, found)
