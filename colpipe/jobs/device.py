"""Which accelerator a stage uses; torch's and accelerate's device APIs do the rest.

    python -m colpipe.jobs.device      what would be used here, and why not the rest

CUDA and NPU are untested on hardware so far: the tests exercise the CPU.
"""

import importlib.util
import os

import torch
from accelerate import PartialState

from colpipe.errors import ColpipeError, first_line


def float64(value: torch.Tensor) -> torch.Tensor:
    """In float64; on the CPU where the device has none (Ascend NPUs compute little in it)."""
    return (value if value.device.type in ("cpu", "cuda") else value.cpu()).double()


def why_not(kind: str) -> str | None:
    """Why `cuda` or `npu` cannot be used in this process; None where it can."""
    if kind == "npu":
        if not importlib.util.find_spec("torch_npu"):
            return "torch_npu is not installed (pip install -e .[npu])"
        try:
            import torch_npu  # noqa: F401  (registers torch.npu; needs the CANN libraries on the machine)
        except (ImportError, OSError, RuntimeError) as error:
            return f"torch_npu cannot be loaded: {first_line(error)}"
        return None if torch.npu.is_available() else f"torch_npu finds no device{_hidden('ASCEND_RT_VISIBLE_DEVICES')}"
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA"
    return None if torch.cuda.is_available() else f"torch finds no device{_hidden('CUDA_VISIBLE_DEVICES')}"


def _hidden(variable: str) -> str:
    return f" ({variable} is {os.environ[variable]!r})" if variable in os.environ else ""


def pick_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `npu`; of several, the one that belongs to this process.

    Raises:
        ColpipeError: the wanted device is not there.
    """
    reasons = {kind: why_not(kind) for kind in ("npu", "cuda") if wanted in (kind, "auto")}
    for kind, reason in reasons.items():
        if reason is None:
            return torch.device(kind, int(os.environ.get("LOCAL_RANK", 0)))
    if wanted in reasons:
        raise ColpipeError(f"runtime.device: {wanted} cannot be used: {reasons[wanted]}; use auto or cpu")
    return torch.device("cpu")


def join_processes(wanted: str) -> None:
    """Have the processes of a job, one a device, know each other."""
    PartialState(cpu=pick_device(wanted).type == "cpu")


def wait_for_all() -> None:
    """Wait until every process of the job is here; nothing where there is one."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def leave_processes() -> None:
    """End the work in common: from here on each process is alone."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def require_precision(device: torch.device, precision: str) -> None:
    """Refuse bfloat16 where the device has none.

    Raises:
        ColpipeError: it has none.
    """
    if precision != "bfloat16" or device.type == "cpu":
        return
    backend = getattr(torch, device.type)
    if not backend.is_bf16_supported():
        raise ColpipeError(f"precision: bfloat16 is not supported by {backend.get_device_name()}; use float32")


def main() -> None:
    print(f"used: {pick_device('auto').type}")
    for kind in ("npu", "cuda"):
        if reason := why_not(kind):
            print(f"{kind}: no: {reason}")
            continue
        backend = getattr(torch, kind)
        for index in range(backend.device_count()):
            half = "bfloat16" if backend.is_bf16_supported() else "no bfloat16"
            memory = backend.get_device_properties(index).total_memory / 1e9
            print(f"{kind}: {index} {backend.get_device_name(index)}, {memory:.0f} GB, {half}")
    print(f"cpu: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")


if __name__ == "__main__":
    main()
