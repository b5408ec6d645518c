"""How fast it is at real shapes, random weights: tokens a second, and the share of the device's FLOP/s that is reached."""

from collections.abc import Iterator
from functools import partial

import torch

from colpipe.cost.devices import peak_of
from colpipe.jobs.device import device_name, peak_memory_of, start_peak
from tests.gpu import contenders
from tests.gpu.bare import lacking
from tests.gpu.devices import product_rate, seconds_of
from tests.gpu.finding import Finding, found, lacks, not_run
from tests.gpu.real import PAIRS, Ran, empty, run
from tests.gpu.tiny import World

# (pair, length, batch, precision): the first of each precision is what `colpipe estimate` takes.
TRAINED = (
    ("gpt2", 1024, 32, "bfloat16"),
    ("gpt2", 512, 64, "bfloat16"),
    ("qwen3", 1024, 16, "bfloat16"),
    ("smollm2", 1024, 32, "bfloat16"),
    ("gpt2", 1024, 16, "float32"),
)
STEPS, SKIPPED = 12, 4
COMPILED = 90  # seconds that have to be left for torch.compile


def check(world: World) -> Iterator[Finding]:
    if not world.has_accelerator:
        for pair, length, batch, precision in TRAINED:
            name = f"{PAIRS[pair].name}, T = {length:,}, {precision}"
            yield not_run(
                name, f"needs an accelerator: would distil {STEPS} steps of {batch} rows, and tell tokens/s and MFU"
            )
        yield not_run(
            "loss, sampling, attention, torch.compile", "needs an accelerator: would measure ours and others'"
        )
        return
    rates = {precision: product_rate(world.device, getattr(torch, precision)) for precision in ("bfloat16", "float32")}
    for pair, length, batch, precision in TRAINED:
        name = f"{PAIRS[pair].name}, T = {length:,}, {precision}"
        ran = run(world, PAIRS[pair], length, batch, STEPS, precision, skipped=SKIPPED)
        yield _reached(world, name, ran, precision, rates[precision])
    for part in (_loss, _sampling, _attention, _compiled):
        yield from part(world)


def _reached(world: World, name: str, ran: Ran, precision: str, product: float) -> Finding:
    rate, device = ran.flops / ran.seconds, device_name(world.device)
    peak = peak_of(device, precision)
    share = f"MFU {rate / peak:.1%} of {peak / 1e12:g} TFLOP/s" if peak else "no published peak known"
    speed = ran.tokens / ran.seconds
    said = f"{speed:,.0f} tokens/s, {share}, {rate / product:.1%} of products"
    said += f", {ran.peak / 1e9:.1f} GB, {ran.micro} rows a pass"
    numbers = {
        "tokens_per_second": speed,
        "flops_per_second": rate,
        "mfu": peak and rate / peak,
        "precision": precision,
    }
    return found(rate > 0, name, said, of_products=rate / product, peak_memory=ran.peak, micro=ran.micro, **numbers)


def _loss(world: World) -> Iterator[Finding]:
    """Reverse KL, or what others have that is next to it, forward and backward from hidden states of 8,192 tokens."""
    for vocabulary in (50257, 151936):
        for name, make in contenders.LOSSES.items():
            label = f"loss, V = {vocabulary:,}, {name}"
            if missing := lacking(contenders.NEEDS.get(name, ())):
                yield lacks(label, missing)
                continue
            work = partial(make, world.device, 8192, vocabulary)
            yield _timed(world, label, work, theirs=not name.startswith("ours"))


def _timed(world: World, label: str, make, theirs: bool = False) -> Finding:
    empty(world.device)
    try:
        work = make()
        before = start_peak(world.device)
        seconds = seconds_of(work, world.device)
    except Exception as error:
        if not theirs:
            raise
        return not_run(label, f"{type(error).__name__}: {str(error).splitlines()[0][:90]}")
    peak = peak_memory_of(world.device) - before
    return found(True, label, f"{1000 * seconds:.1f} ms, {peak / 1e6:,.0f} MB", seconds=seconds, peak=peak)


def _sampling(world: World) -> Iterator[Finding]:
    """Sampled tokens a second of both models mixed, and of each alone by `generate`."""
    for name, (work, tokens) in contenders.samplers(world.device, PAIRS["gpt2"]).items():
        seconds = seconds_of(work, world.device, times=1)
        said = f"{tokens / seconds:,.0f} tokens/s"
        yield found(True, f"sampling, {name}", said, tokens_per_second=tokens / seconds)


def _attention(world: World) -> Iterator[Finding]:
    """A forward and backward pass of GPT2-B by kinds of attention; packed: rows end to end, told apart by positions."""
    for kind in ("sdpa", "eager", "flash_attention_2"):
        if kind.startswith("flash") and (missing := lacking(["flash_attn"])):
            yield lacks(f"attention, {kind}", missing)
            continue
        for packed in (False, True):
            label = f"attention, {kind}{', packed' * packed}"
            yield _timed(world, label, partial(contenders.passes, world.device, PAIRS["gpt2"], kind, packed), True)


def _compiled(world: World) -> Iterator[Finding]:
    name = "torch.compile of the student, GPT2-B, T = 1,024"
    if world.seconds() < COMPILED:
        yield not_run(name, f"fewer than {COMPILED} s are left")
        return
    plain, faster = (
        _timed(world, name, partial(contenders.passes, world.device, PAIRS["gpt2"], "sdpa", False, compiled), True)
        for compiled in (False, True)
    )
    if broken := [each for each in (plain, faster) if not each.numbers]:
        yield broken[0]
        return
    ratio = plain.numbers["seconds"] / faster.numbers["seconds"]
    yield found(True, name, f"{ratio:.2f} times as fast as without", times_as_fast=ratio)
