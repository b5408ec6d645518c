"""How fast it is at real shapes, random weights: tokens a second, and the share of the device's FLOP/s that is reached."""

from collections.abc import Iterator
from functools import partial

import torch

from colpipe.config.constants import logits_chunk
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
TOKENS, VOCABULARIES = 8192, (50257, 151936)  # of the loss
CHUNKS = range(23, 29)  # powers of 2 of logits
# How models are compiled, and the seconds that have to be left for it.
COMPILED = {"blocks": 60, "whole": 120, "whole, CUDA graphs": 150}


def check(world: World) -> Iterator[Finding]:
    if not world.has_accelerator:
        yield from _chunks(world, 32, (512,), range(9, 16, 2))
        for pair, length, batch, precision in TRAINED:
            name = f"{PAIRS[pair].name}, T = {length:,}, {precision}"
            yield not_run(
                name, f"needs an accelerator: would distil {STEPS} steps of {batch} rows, and tell tokens/s and MFU"
            )
        yield not_run("loss, sampling, attention", "needs an accelerator: would measure ours and others'")
        yield not_run(
            "torch.compile", f"needs an accelerator: would distil with and without, compiled as {'; '.join(COMPILED)}"
        )
        return
    rates = {precision: product_rate(world.device, getattr(torch, precision)) for precision in ("bfloat16", "float32")}
    plain: Ran | None = None
    for pair, length, batch, precision in TRAINED:
        name = f"{PAIRS[pair].name}, T = {length:,}, {precision}"
        ran = run(world, PAIRS[pair], length, batch, STEPS, precision, skipped=SKIPPED)
        plain = plain or ran
        yield _reached(world, name, ran, precision, rates[precision])
    for part in (_loss, _chunks, _sampling, _attention):
        yield from part(world)
    yield from _compiled(world, plain)


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
    for vocabulary in VOCABULARIES:
        for name, make in contenders.LOSSES.items():
            label = f"loss, V = {vocabulary:,}, {name}"
            if missing := lacking(contenders.NEEDS.get(name, ())):
                yield lacks(label, missing)
                continue
            work = partial(make, world.device, TOKENS, vocabulary)
            yield _timed(world, label, work, theirs=not name.startswith("ours"))


def _chunks(world: World, tokens: int = TOKENS, vocabularies=VOCABULARIES, powers=CHUNKS) -> Iterator[Finding]:
    """The loss by the size of its chunks, and which is the fastest; parts as colpipe has them here, and whole chunks."""
    default = logits_chunk(world.device.type)
    for vocabulary in vocabularies:
        sizes = [(2**power, part) for power in powers for part in sorted({min(2**power, default.together), 2**power})]
        found_at = {}
        for chunk, part in sorted({tuple(default), *sizes}):
            label = f"loss, V = {vocabulary:,}, chunks of {_power(chunk)} in parts of {_power(part)}"
            make = partial(contenders.ours, world.device, tokens, vocabulary, sizes=(chunk, part))
            finding = _timed(world, label, make, theirs=chunk > default.projected)  # memory may not suffice
            if finding.numbers:
                found_at[chunk, part] = finding.numbers
            yield finding._replace(numbers={**finding.numbers, "chunk": chunk, "part": part})
        best = min(found_at, key=lambda size: found_at[size]["seconds"])
        ratio = found_at[tuple(default)]["seconds"] / found_at[best]["seconds"]
        said = f"{_power(best[0])} in parts of {_power(best[1])}; colpipe's {_power(default.projected)} in parts of "
        said += f"{_power(default.together)} take {ratio:.2f} times as long"
        numbers = {"vocabulary": vocabulary, "best_chunk": best[0], "best_part": best[1], "own_to_best": ratio}
        yield found(True, f"loss, V = {vocabulary:,}, fastest chunks", said, **numbers)


def _power(number: int) -> str:
    return f"2^{number.bit_length() - 1}"


def _timed(world: World, label: str, make, theirs: bool = False, times: int = 3) -> Finding:
    empty(world.device)
    try:
        work = make()
        before = start_peak(world.device)
        seconds = seconds_of(work, world.device, times)
    except Exception as error:
        if not theirs:
            raise
        return not_run(label, f"{type(error).__name__}: {str(error).splitlines()[0][:90]}")
    peak = peak_memory_of(world.device) - before
    return found(True, label, f"{1000 * seconds:.1f} ms, {peak / 1e6:,.0f} MB", seconds=seconds, peak=peak)


def _sampling(world: World, pair: str = "gpt2", **lengths: int) -> Iterator[Finding]:
    """Sampled tokens a second of both models mixed, and of each alone by `generate`."""
    for name, (work, tokens) in contenders.samplers(world.device, PAIRS[pair], **lengths).items():
        finding = _timed(
            world, f"sampling, {name}", lambda work=work: work, theirs=not name.startswith("ours"), times=1
        )
        if finding.numbers:
            rate, peak = tokens / finding.numbers["seconds"], finding.numbers["peak"]
            finding = found(True, finding.name, f"{rate:,.0f} tokens/s, {peak / 1e6:,.0f} MB", tokens_per_second=rate)
        yield finding


def _attention(world: World) -> Iterator[Finding]:
    """A forward and backward pass of GPT2-B by kinds of attention; packed: rows end to end, told apart by positions."""
    for kind in ("sdpa", "eager", "flash_attention_2"):
        if kind.startswith("flash") and (missing := lacking(["flash_attn"])):
            yield lacks(f"attention, {kind}", missing)
            continue
        for packed in (False, True):
            label = f"attention, {kind}{', packed' * packed}"
            yield _timed(world, label, partial(contenders.passes, world.device, PAIRS["gpt2"], kind, packed), True)


def _compiled(
    world: World, plain: Ran | None = None, pair: str = "gpt2", length: int = 1024, batch: int = 32
) -> Iterator[Finding]:
    """A distillation whose models are compiled: how much faster a step is than a plain one, which may have been run, and
    after how many that has paid."""
    settings = (world, PAIRS[pair], length, batch, STEPS)
    for way, seconds in COMPILED.items():
        name = f"torch.compile, {way}, {PAIRS[pair].name}, T = {length:,}"
        if world.seconds() < seconds:
            yield not_run(name, f"fewer than {seconds} s are left")
            continue
        plain = plain or run(*settings, skipped=SKIPPED)
        try:
            ran = run(*settings, skipped=SKIPPED, change=partial(contenders.compiled, way=way))
        except Exception as error:
            yield not_run(name, f"{type(error).__name__}: {str(error).splitlines()[0][:90]}")
            continue
        faster, steps = plain.seconds / ran.seconds, STEPS - SKIPPED
        gain, spent = (plain.seconds - ran.seconds) / steps, ran.first - plain.first
        pays = f"pays after {max(0, spent) / gain:,.0f} steps" if gain > 0 else "never pays"
        said = f"{faster:.2f} times as fast, {spent:.0f} s to compile: {pays}"
        said += f"; {ran.peak / 1e9:.1f} GB, {ran.micro} rows a pass"
        yield found(True, name, said, times_as_fast=faster, compile_seconds=spent, gain_per_step=gain, micro=ran.micro)
