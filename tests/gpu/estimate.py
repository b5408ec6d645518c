"""The estimate against fact: FLOPs as counted, and seconds of one training by the rate of another."""

from collections.abc import Iterator

from tests.gpu.finding import Finding, found
from tests.gpu.real import PAIRS, run
from tests.gpu.tiny import World

LIMIT = 1.3  # between seconds as foretold and as they were; on a CPU, which others use too, they are told only


def check(world: World) -> Iterator[Finding]:
    pair, lengths, batch, steps = (
        (PAIRS["gpt2"], (512, 1024), 32, 12) if world.has_accelerator else (PAIRS["small"], (64, 96), 2, 4)
    )
    skipped, precision = (3, "bfloat16") if world.has_accelerator else (1, "float32")
    for taught in (True, False):
        name = "distillation" if taught else "pre-training"
        first, second = (
            run(world, pair, length, batch, steps, precision, taught, skipped=skipped) for length in lengths
        )
        ratio = second.work.flops / second.counted
        said = f"{pair.name}: estimated {second.work.flops:.4g}, counted {second.counted:.4g}, ratio {ratio:.4f}"
        yield found(abs(ratio - 1) < 0.01, f"FLOPs, {name}", said, ratio=ratio)
        rate = first.flops / first.seconds
        foretold = second.work.flops * (1 - skipped / steps) / rate
        off = max(foretold / second.seconds, second.seconds / foretold)
        said = f"T = {lengths[1]}, by the rate at T = {lengths[0]}: {foretold:.2f} s foretold, {second.seconds:.2f} s taken"
        right = off <= LIMIT or not world.has_accelerator
        yield found(right, f"seconds, {name}", said, foretold=foretold, taken=second.seconds)
