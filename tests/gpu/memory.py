"""The estimate's memory against what the device had in use at most (`max_memory_allocated`), at GPT-2's real sizes."""

from collections.abc import Iterator

from tests.gpu.finding import Finding, found, not_run
from tests.gpu.real import PAIRS, run
from tests.gpu.tiny import World

LIMIT = 0.15
BATCH, LENGTH, STEPS = 8, 512, 4
CASES = {
    "pre-training": {"taught": False},
    "distillation": {"taught": True},
    "distillation, checkpointed": {"taught": True, "gradient_checkpointing": True},
}


def check(world: World) -> Iterator[Finding]:
    if not world.has_accelerator:
        would = f"would train GPT2-B on {BATCH} × {LENGTH} tokens in float32, alone and from GPT2-M, and compare both within"
        why = (
            f"needs an accelerator: {would} {LIMIT:.0%}; main memory is measured by tests/unit/training/test_memory.py"
        )
        yield not_run(", ".join(CASES), why)
        return
    for name, case in CASES.items():
        ran = run(world, PAIRS["gpt2"], LENGTH, BATCH, STEPS, "float32", skipped=1, **case)
        ratio = ran.work.memory / ran.peak
        said = f"estimated {ran.work.memory / 1e9:.2f} GB, in use {ran.peak / 1e9:.2f} GB, ratio {ratio:.2f}"
        yield found(abs(ratio - 1) <= LIMIT, name, said, estimated=ran.work.memory, peak=ran.peak)
