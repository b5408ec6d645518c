"""What each module of a tiny model does to its residual stream, seen from what goes into it and comes out of it.

Names say nothing here. A layer's output is its input plus what some of its modules put out, which is a linear system with
few unknowns: the modules with a coefficient write to the stream, or are norms behind one that does. A module that is given
the stream, or what a norm over it puts out, reads. Everything else is inside.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from colpipe.errors import ColpipeError
from colpipe.tools.family_table.models import ids, run

CLOSE = 1e-3  # of float32 sums; what is not the same differs by about 1


@dataclass
class Module:
    """What a module with parameters of its own does.

    Attributes:
        role: as in a table; `norm` for norms over the stream.
        after: the norm whose output it reads.
        into: the norm that reads what it writes.
        first: whether its weight is stored inputs first, as that of a Conv1D.
        factor: what its output is multiplied by when it is added to the stream.
    """

    role: str
    after: str = ""
    into: str = ""
    first: bool = False
    factor: float = 1.0


@dataclass
class Flow:
    """What all modules of a model do.

    Attributes:
        layers: name of the list of layers.
        modules: name → what it does; those of the first layer stand for all.
        parallel: whether attention and feed-forward part read the same stream.
        embedding: what the embedding is multiplied by before the first layer.
        inputs, outputs: module → the tensor that it was given, and gave.
        logits: what the model gave.
        checks: what could not be told.
    """

    layers: str
    modules: dict[str, Module] = field(default_factory=dict)
    parallel: bool = False
    embedding: float = 1.0
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.zeros(0))
    checks: list[str] = field(default_factory=list)


def flow_of(model, depth: int) -> Flow:
    """What the modules of a model do.

    Raises:
        ColpipeError: it has no list of layers, no residual stream that is only added to, or norms without a gain.
    """
    lists = [
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not lists:
        raise ColpipeError(f"{type(model).__name__}: no list of {depth} layers in it")
    flow = Flow(min(lists, key=lambda name: name.count(".")))
    _record(model, flow)
    found = [_layer(model, flow, f"{flow.layers}.{layer}") for layer in range(depth)]
    if any(each != found[0] for each in found):
        flow.checks.append("layers do different things: the table has one description for all")
    flow.modules = {f"{flow.layers}.0{name}": module for name, module in found[0].items()}
    _outside(model, flow, depth)
    return flow


def _record(model, flow: Flow) -> None:
    """Run the model and keep what its modules are given and give."""

    def keep(name: str):
        def hook(module, given, named, output):
            tensors = [each for each in (*given, *named.values()) if isinstance(each, Tensor)]
            output = output[0] if isinstance(output, tuple) else output
            if tensors and isinstance(output, Tensor):
                flow.inputs[name], flow.outputs[name] = tensors[0].detach(), output.detach()

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(keep(name), with_kwargs=True))
        flow.logits = run(model)


def leaves(model) -> dict[str, nn.Module]:
    """Modules with parameters of their own, by name."""
    return {
        name: module for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))
    }


def is_norm(module: nn.Module) -> bool:
    """Whether a module's parameters are a gain, with or without a shift."""
    own = dict(module.named_parameters(recurse=False))
    return set(own) in ({"weight"}, {"weight", "bias"}) and own["weight"].ndim == 1


def combine(target: Tensor, parts: Sequence[Tensor]) -> tuple[list[float], float]:
    """Coefficients of the linear combination of tensors that is closest to another, and how far away that is, relatively."""
    goal = target.double().flatten()
    size = goal.norm().clamp_min(1e-9)
    if not parts:
        return [], (goal.norm() / size).item()
    columns = torch.stack([part.double().flatten() for part in parts], 1)
    solution = torch.linalg.lstsq(columns, goal, driver="gelsd").solution
    return solution.tolist(), ((columns @ solution - goal).norm() / size).item()


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors hold the same numbers, whatever their shapes."""
    if one is None or other is None or one.numel() != other.numel():
        return False
    return torch.allclose(one.flatten().float(), other.flatten().float(), rtol=CLOSE, atol=CLOSE)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have as many channels for as many tokens."""
    return (one.shape[-1], one.numel()) == (other.shape[-1], other.numel())


def _layer(model, flow: Flow, block: str) -> dict[str, Module]:
    """Name in the layer, from its dot on → what the module does."""
    inputs, outputs = flow.inputs, flow.outputs
    entered = inputs[block]
    inside = {name: each for name, each in leaves(model).items() if name.startswith(f"{block}.") and name in outputs}
    wide = [name for name in inside if _alike(outputs[name], entered)]
    coefficients, off = combine(outputs[block] - entered, [outputs[name] for name in wide])
    if off > CLOSE:
        raise ColpipeError(
            f"{type(model).__name__}: what leaves {block} is not what entered it plus what its modules put out: no residual "
            "stream that is only added to, so no table for it"
        )
    added = {name: factor for name, factor in zip(wide, coefficients, strict=True) if abs(factor) > CLOSE}
    found: dict[str, Module] = {}
    for name, factor in added.items():
        writer = name
        if is_norm(inside[name]):
            found[name] = Module("norm")
            writer = next((each for each in inside if each != name and same(outputs[each], inputs[name])), "")
        if writer:
            found[writer] = Module("write", into=name if writer != name else "", factor=round(factor, 3))
        else:
            flow.checks.append(f"{name} adds to the stream what no module puts out")

    additions = [outputs[name] for name in added]

    def is_stream(tensor: Tensor) -> bool:
        if not _alike(tensor, entered):
            return False
        return same(tensor, entered) or combine(tensor.view_as(entered) - entered, additions)[1] < CLOSE

    norms = [
        name for name, module in inside.items() if name not in found and is_norm(module) and is_stream(inputs[name])
    ]
    found |= {name: Module("norm") for name in norms}
    read = []
    for name in inside:
        if name in found:
            continue
        after = next((norm for norm in norms if same(outputs[norm], inputs[name])), "")
        found[name] = Module("read" if after or is_stream(inputs[name]) else "inside", after=after)
        if found[name].role == "read":
            read.append(inputs[after] if after else inputs[name])
        elif norm := _without_weights(model, flow, block, name):
            raise ColpipeError(
                f"{type(model).__name__}: {name} reads what {norm} puts out, which has no weights; norms of a table have "
                "a gain, so no table for it"
            )
    flow.parallel = bool(read) and all(same(each, entered) for each in read)
    for name, module in inside.items():
        found[name].first = _inputs_first(module, inputs[name], outputs[name])
    return {name[len(block) :]: _layered(found[name], block) for name in inside}


def _without_weights(model, flow: Flow, block: str, reader: str) -> str:
    """The module without parameters, if any, whose output is a module's input."""
    entered, given = flow.inputs[block], flow.inputs[reader]
    bare = (
        name
        for name, module in model.named_modules()
        if name.startswith(f"{block}.") and name in flow.outputs and not list(module.parameters())
    )
    return next((name for name in bare if _alike(flow.outputs[name], entered) and same(flow.outputs[name], given)), "")


def _layered(module: Module, block: str) -> Module:
    """With the norms of any layer as `{layer}` has them."""
    pattern = block.rpartition(".")[0] + ".{layer}"
    for side in ("after", "into"):
        if norm := getattr(module, side):
            setattr(module, side, pattern + norm[len(block) :])
    return module


def _inputs_first(module: nn.Module, given: Tensor, output: Tensor) -> bool:
    """Whether a matrix is stored (in, out) instead of (out, in)."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2 or not given.is_floating_point() or given.shape[-1] != weight.shape[0]:
        return False
    bias = getattr(module, "bias", None)
    return same(given @ weight.detach() + (0 if bias is None else bias.detach()), output)


def _outside(model, flow: Flow, depth: int) -> None:
    """What stands before the first layer and behind the last one."""
    entered, left = flow.inputs[f"{flow.layers}.0"], flow.outputs[f"{flow.layers}.{depth - 1}"]
    head, vocabulary = model.get_output_embeddings(), model.get_input_embeddings()
    outside = {name: module for name, module in leaves(model).items() if not name.startswith(f"{flow.layers}.")}
    rows: dict[str, Tensor] = {}
    for name, module in outside.items():
        if module is vocabulary:  # as it is stored, not as the module gives it
            rows[name] = nn.functional.embedding(ids(), module.weight.detach())
            flow.modules[name] = Module("embed")
        elif module is head:
            given = flow.inputs[name]
            norm = next(
                (each for each in outside if is_norm(outside[each]) and same(flow.outputs.get(each), given)), ""
            )
            flow.modules[name] = Module("head", after=norm)
            _compare_logits(flow, name)
            if not norm:
                flow.checks.append(f"{name} reads no norm with a gain")
        elif isinstance(module, nn.Embedding) and name in flow.outputs:
            rows[name] = flow.outputs[name].expand_as(entered)
            flow.modules[name] = Module("embed")
        elif is_norm(module) and same(flow.inputs.get(name), left):
            flow.modules[name] = Module("norm")
        else:
            flow.checks.append(f"{name} is outside the layers, and neither embedding, last norm nor head")
    coefficients, off = combine(entered, list(rows.values()))
    if off > CLOSE:
        flow.checks.append("the stream that enters the first layer is not the sum of the embeddings")
        return
    factors = dict(zip(rows, coefficients, strict=True))
    for name, factor in factors.items():
        if outside[name] is vocabulary:
            flow.embedding = factor
        elif abs(factor - 1) > CLOSE:
            flow.checks.append(f"{name} is multiplied by {factor:.3g} before the first layer")


def _compare_logits(flow: Flow, head: str) -> None:
    """Say what the model does to logits after its head."""
    [factor], off = combine(flow.logits, [flow.outputs[head]])
    if off > CLOSE:
        flow.checks.append(
            "logits are not what the head puts out: HEADS of colpipe/hf/logits.py has to know how they come"
        )
    elif abs(factor - 1) > CLOSE:
        flow.checks.append(f"logits are {factor:.4g} times what the head puts out: see HEADS of colpipe/hf/logits.py")


def norm_kind(module: nn.Module) -> tuple[str, float]:
    """`layer` where a constant added to all channels changes nothing, `rms` where a factor does, else nothing; and what the
    module adds to its gain."""
    width = next(module.parameters(recurse=False)).shape[0]
    given = 10 * torch.randn(16, width, generator=torch.Generator().manual_seed(2))  # an epsilon is little beside it
    with torch.no_grad():
        as_it_is = module(given)
        shifted, scaled = same(as_it_is, module(given + 10)), same(as_it_is, module(given * 2))
        kept = {name: parameter.clone() for name, parameter in module.named_parameters()}
        outputs = []
        for gain in (0.0, 1.0):
            for name, parameter in module.named_parameters():
                parameter.fill_(gain if name == "weight" else 0.0)
            outputs.append(module(given))
        for name, parameter in module.named_parameters():
            parameter.copy_(kept[name])
    zero, one = outputs
    kind = "layer" if shifted else "rms" if scaled else ""
    return kind, round((zero.norm() / (one - zero).norm()).item(), 3)
