"""Small trainings on the device, step by step, against the same ones in float64 on the CPU."""

from collections.abc import Iterator
from functools import partial

import torch

from tests.gpu.bare import lacking
from tests.gpu.finding import Finding, found, lacks, not_run, within
from tests.gpu.tiny import World, difference, distilled, pretrained

CPU = torch.device("cpu")
DISTILLED = ("reverse_kl", "forward_kl", "jsd", "seqkd", "minillm", "on_policy", "reverse_kl+elastic")
SAMPLED = ("minillm", "on_policy")
FLOAT32, BFLOAT16 = 1e-3, 3e-2  # how far losses and weights may be apart, relative


def check(world: World) -> Iterator[Finding]:
    trainings = {f"distillation, {objective}": partial(distilled, objective=objective) for objective in DISTILLED}
    trainings["pre-training"] = pretrained
    # A target that is reached in between: the loss halfway.
    halfway = pretrained(world.folder / "halfway", device=CPU, dtype=torch.float64).losses["validation", 6]
    trainings["recovery that ends at its target"] = partial(pretrained, target=halfway + 1e-3, evaluations=12)
    for number, (name, training) in enumerate(trainings.items()):
        if name.endswith("elastic") and (missing := lacking(["einops"])):
            yield lacks(name, missing)
            continue
        folder = world.folder / str(number)
        exact = training(folder / "exact", device=CPU, dtype=torch.float64)
        ours = training(folder / "ours", device=world.device)
        yield within(f"{name}, float32", difference(ours, exact), FLOAT32, _curve(exact))
        if number == 0:
            split = training(folder / "split", device=world.device, runtime={"micro_batch": 2})
            yield within(f"{name}, in micro-batches of 2", difference(split, exact), FLOAT32)
        elif not world.has_accelerator:
            continue
        if name.endswith(("target", *SAMPLED)):  # in bfloat16 they end elsewhere, or sample others
            continue
        half = training(folder / "half", device=world.device, precision="bfloat16")
        apart = {"losses": difference(half, exact)["losses"]}
        yield within(f"{name}, bfloat16", apart, BFLOAT16)
    if not world.has_accelerator:
        yield not_run(
            "the others in bfloat16", "needs an accelerator, or time: would compare their losses to float64's"
        )
    yield from _supervised(world)


def _curve(trained) -> str:
    steps = [loss for (split, _), loss in sorted(trained.losses.items()) if split == "train"]
    return f"loss {steps[0]:.3f} → {steps[-1]:.3f} in {len(steps)} steps; "


def _supervised(world: World) -> Iterator[Finding]:
    name = "fine-tuning (trl)"
    if missing := lacking(["trl", "datasets"]):
        yield lacks(name, missing)
        return
    from tests.gpu.supervised import fine_tuned

    losses = {str(place): fine_tuned(world.folder / f"sft-{place}", place) for place in (CPU, world.device)}
    first, last = losses[str(world.device)][0], losses[str(world.device)][-1]
    apart = max(abs(a - b) / b for a, b in zip(losses[str(world.device)], losses["cpu"], strict=True))
    said = f"loss {first:.3f} → {last:.3f}; "
    if world.has_accelerator:
        yield within(name, {"losses": apart}, FLOAT32, said)
    else:
        yield found(
            last < first, name, f"{said}on a GPU, its losses would be compared to these", first=first, last=last
        )
