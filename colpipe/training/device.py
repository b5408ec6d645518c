"""Which accelerator this process uses; torch's and accelerate's device APIs do the rest.

CUDA and NPU are untested on hardware so far: the tests exercise the CPU.
"""

import importlib.util

import torch

from colpipe.errors import ColpipeError


def float64(value: torch.Tensor) -> torch.Tensor:
    """In float64; on the CPU where the device has none (Ascend NPUs compute little in it)."""
    return (value if value.device.type in ("cpu", "cuda") else value.cpu()).double()


def pick_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `npu`.

    Raises:
        ColpipeError: the wanted device is not there.
    """
    if wanted in ("npu", "auto") and importlib.util.find_spec("torch_npu"):
        import torch_npu  # noqa: F401  (registers torch.npu)

        if torch.npu.is_available():
            return torch.device("npu")
    if wanted in ("cuda", "auto") and torch.cuda.is_available():
        return torch.device("cuda")
    if wanted in ("cpu", "auto"):
        return torch.device("cpu")
    raise ColpipeError(f"runtime.device: {wanted} is not available here; use auto or cpu")
