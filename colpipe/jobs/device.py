"""Which accelerator a stage uses, and all that colpipe asks of one beside tensors and accelerate; their differences are in
`kinds.py`.

    python -m colpipe.jobs.device      what would be used here, and why not the rest

CUDA and NPU are untested on hardware so far: the tests exercise the CPU, and an NPU that stands in. `make gpu-check` checks
a real one (docs/accelerators.md).
"""

import importlib
import importlib.util
import os

import torch
from accelerate import PartialState

from colpipe.errors import ColpipeError, first_line
from colpipe.jobs.kinds import KINDS


def float64(value: torch.Tensor) -> torch.Tensor:
    """In float64; on the CPU where the device has none (Ascend NPUs compute little in it)."""
    kind = KINDS.get(value.device.type)
    return (value if kind is None or kind.float64 else value.cpu()).double()


def backend(device: torch.device | str):
    """`torch.cuda` or `torch.npu`, or None for the CPU."""
    kind = torch.device(device).type
    return getattr(torch, kind) if kind in KINDS else None


def why_not(kind: str) -> str | None:
    """Why `cuda` or `npu` cannot be used in this process; None where it can."""
    about = KINDS[kind]
    if about.package:
        if not importlib.util.find_spec(about.package):
            return f"{about.package} is not installed (pip install 'colpipe[{kind}]')"
        try:
            importlib.import_module(about.package)  # it needs libraries of the machine (CANN)
        except (ImportError, OSError, RuntimeError) as error:
            return f"{about.package} cannot be loaded: {first_line(error)}"
    elif torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA"
    if getattr(torch, kind).is_available():
        return None
    return f"{about.package or 'torch'} finds no device{_hidden(about.visible)}"


def _hidden(variable: str) -> str:
    return f" ({variable} is {os.environ[variable]!r})" if variable in os.environ else ""


def pick_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `npu`; of several, the one that belongs to this process.

    Raises:
        ColpipeError: the wanted device is not there.
    """
    reasons = {kind: why_not(kind) for kind in KINDS if wanted in (kind, "auto")}
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
    own = backend(device)
    if precision == "bfloat16" and own and not own.is_bf16_supported():
        raise ColpipeError(f"precision: bfloat16 is not supported by {own.get_device_name()}; use float32")


def device_name(device: torch.device) -> str:
    """As its maker calls it; of a CPU, how torch uses it."""
    own = backend(device)
    if own is None:
        return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return own.get_device_name(device)


def memory_of(device: torch.device) -> int:
    """Bytes of an accelerator's memory."""
    return backend(device).get_device_properties(device).total_memory


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if own := backend(device):
        own.synchronize(device)


def peak_memory_of(device: torch.device) -> int:
    """Bytes of a device's memory that were in use at most since `start_peak`; 0 for a CPU."""
    own = backend(device)
    return own.max_memory_allocated(device) if own else 0


def start_peak(device: torch.device) -> int:
    """Give back what is not in use, and look for the peak from here on; bytes that are in use now, 0 for a CPU."""
    own = backend(device)
    if own is None:
        return 0
    own.empty_cache()
    own.reset_peak_memory_stats(device)
    return own.memory_allocated(device)


def main() -> None:
    print(f"used: {pick_device('auto').type}")
    for kind in KINDS:
        if reason := why_not(kind):
            print(f"{kind}: no: {reason}")
            continue
        own = backend(kind)
        for index in range(own.device_count()):
            device = torch.device(kind, index)
            half = "bfloat16" if own.is_bf16_supported() else "no bfloat16"
            print(f"{kind}: {index} {device_name(device)}, {memory_of(device) / 1e9:.0f} GB, {half}")
    print(f"cpu: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")


if __name__ == "__main__":
    main()
