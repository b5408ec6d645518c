"""LInit, the other initialisers and fitted cuts of models that lie on the device, against the same on the CPU."""

from collections.abc import Iterator

import torch

from tests.gpu.bare import lacking
from tests.gpu.finding import Finding, found, lacks, within
from tests.gpu.tiny import GPT2, LARGE, LLAMA, SMALL, VOCABULARY, World, model, relative

# As in a chain: heads of one size, so that they are taken whole; grouped queries where the family has them.
CHAINS = {
    "gpt2": (GPT2, SMALL, LARGE, {"layers": 3, "heads": 3, "hidden": 48}),
    "llama": (
        LLAMA,
        {"layers": 2, "heads": 2, "kv_heads": 1, "hidden": 32, "ffn": 64},
        {"layers": 4, "heads": 4, "kv_heads": 2, "hidden": 64, "ffn": 128},
        {"layers": 3, "heads": 2, "kv_heads": 1, "hidden": 32, "ffn": 96},
    ),
}
METHODS = ("paper", "nested", "aligned")


def check(world: World) -> Iterator[Finding]:
    if missing := lacking(["einops"]):
        yield lacks("LInit, fit, initialisers", missing)
        return
    for family in CHAINS:
        yield from _linit(world, family)
        yield _fit(world, family)


def _linit(world: World, family: str) -> Iterator[Finding]:
    from colpipe import api

    architecture, small, large, between = CHAINS[family]
    needed = lacking(["scipy"])
    makes = {
        **{method: lambda a, b, m=method: api.linit(a, b, between, method=m) for method in METHODS},
        "single": lambda a, b: api.initialise("single", a, between),
        "subset": lambda a, b: api.initialise("subset", b, between),
    }
    for name, make in makes.items():
        if name == "aligned" and needed:
            yield lacks(f"{family}, {name}", needed)
            continue
        results = []
        for device in (torch.device("cpu"), world.device):
            pair = (model(shape, seed, architecture).to(device) for seed, shape in enumerate((small, large), 1))
            results.append(dict(make(*pair).named_parameters()))
        same = all(torch.equal(value.cpu(), results[0][key].cpu()) for key, value in results[1].items())
        yield found(same, f"{family}, {name}", "the same bits from models on the device" if same else "other weights")


def _fit(world: World, family: str) -> Finding:
    """What is left of the difference of logits to the source on the text, before the fit and after it."""
    from colpipe import api

    architecture, _, large, between = CHAINS[family]
    ids = torch.randint(VOCABULARY, (32, 32), generator=torch.Generator().manual_seed(0))
    own = model(large, 2, architecture, spread=0.05)
    exact = _logits(own, ids)
    cut = relative(_logits(api.initialise("subset", own, between, select="even"), ids), exact)
    fitted = [
        _logits(api.fit(model(large, 2, architecture, spread=0.05).to(device), between, ids, select="even"), ids)
        for device in (torch.device("cpu"), world.device)
    ]
    left, apart = relative(fitted[1], exact), relative(fitted[1], fitted[0])
    if not left < cut:
        return found(False, f"{family}, fit", f"logits {left:.3f} from the source's, the bare cut's {cut:.3f}")
    said = f"logits {left:.3f} from the source's, the bare cut's {cut:.3f}; to the CPU's fit: "
    return within(f"{family}, fit", {"logits": apart}, 1e-3, said)


@torch.no_grad()
def _logits(one, ids: torch.Tensor) -> torch.Tensor:
    return one.cpu()(ids).logits
