"""The device: what it is, what is installed beside it, that its products are exact, and how fast they are."""

import platform
import time
from collections.abc import Iterator
from importlib import metadata

import torch
from transformers import TrainingArguments

from colpipe.jobs.device import backend, device_name, memory_of, pick_device, require_precision, wait_for
from tests.gpu.bare import is_here
from tests.gpu.finding import Finding, found, within
from tests.gpu.tiny import World, relative

PACKAGES = ("torch", "transformers", "accelerate", "trl", "liger_kernel", "flash_attn", "einops", "pydantic")


def check(world: World) -> Iterator[Finding]:
    device = world.device
    versions = {name: metadata.version(name.replace("_", "-")) for name in PACKAGES if is_here(name)}
    about = {"device": device_name(device), "kind": device.type, "python": platform.python_version(), **versions}
    if world.has_accelerator:
        about["memory_gb"], about["devices"] = round(memory_of(device) / 1e9, 1), backend(device).device_count()
    if device.type == "cuda":
        about["cuda"], about["capability"] = (
            torch.version.cuda,
            "{}.{}".format(*torch.cuda.get_device_capability(device)),
        )
    said = ", ".join(f"{key} {value}" for key, value in about.items() if key != "device")
    yield found(pick_device(device.type).type == device.type, about["device"], said, **about)

    torch.manual_seed(0)
    one, other = torch.randn(512, 768), torch.randn(768, 512)
    exact = one.double() @ other.double()
    halves = (one.bfloat16(), other.bfloat16())
    errors = {"float32": relative(one.to(device) @ other.to(device), exact)}
    yield within("a product in float32, no TF32", errors, 1e-5)
    require_precision(device, "bfloat16")  # refused in one line where the device has none
    half = relative(halves[0].to(device) @ halves[1].to(device), halves[0].double() @ halves[1].double())
    yield within("a product in bfloat16", {"bfloat16": half}, 4e-3)
    yield within("a step of AdamW, as transformers takes it", {"weights": _adamw_error(device)}, 1e-5)
    for precision in ("float32", "bfloat16") if world.has_accelerator else ("float32",):
        rate = product_rate(device, getattr(torch, precision))
        name = f"FLOP/s of products in {precision}"
        yield found(rate > 0, name, f"{rate / 1e12:,.2f} T", **{f"{precision}_flops_per_second": rate})


def _adamw_error(device: torch.device) -> float:
    """Of weights after three steps, against float64 on the CPU, where nothing is fused; which one, transformers says."""
    fused, ends = TrainingArguments.default_optim == "adamw_torch_fused", []
    for place, dtype in ((torch.device("cpu"), torch.float64), (device, torch.float32)):
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(64, 64, generator=generator)
        weight = start.to(place, dtype).requires_grad_()
        optimiser = torch.optim.AdamW([weight], lr=1e-2, fused=fused and dtype == torch.float32)
        for _ in range(3):
            weight.grad = torch.randn(64, 64, generator=generator).to(place, dtype)
            optimiser.step()
        ends.append(weight)
    return relative(ends[1], ends[0])


def seconds_of(work, device: torch.device, times: int = 3) -> float:
    """Of the fastest of so many runs, after one that does not count."""
    work()
    taken = []
    for _ in range(times):
        wait_for(device)
        begun = time.perf_counter()
        work()
        wait_for(device)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large product."""
    size, times = (8192, 10) if device.type != "cpu" else (1024, 1)
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(times):
            one @ other

    return times * 2 * size**3 / seconds_of(multiply, device)
