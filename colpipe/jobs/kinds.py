"""Kinds of accelerators, and all in which they differ for colpipe (no torch here).

A third one is a row here. What else colpipe asks of one goes through `torch.<kind>`, as `device.py` has it, and accelerate.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of accelerator."""

    package: str | None
    """what registers `torch.<kind>` when it is imported; None: torch itself"""
    visible: str
    """variable of the environment that names the devices that a process may use"""
    files: str
    """a file each, as the driver makes them"""
    float64: bool
    """whether it computes in it; else the CPU does"""
    counts_waits: bool
    """whether torch can tell when Python waits for it (`set_sync_debug_mode`)"""


KINDS = {  # `auto` takes the first that is there
    "npu": Kind("torch_npu", "ASCEND_RT_VISIBLE_DEVICES", "/dev/davinci[0-9]*", float64=False, counts_waits=False),
    "cuda": Kind(None, "CUDA_VISIBLE_DEVICES", "/dev/nvidia[0-9]*", float64=True, counts_waits=True),
}
