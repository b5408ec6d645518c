"""The size of every axis of a shape that someone asks for, in full, in part, or by a number of parameters."""

from collections.abc import Mapping

from colpipe.architectures.widths import proportional_units
from colpipe.config.cutting import plan_cut
from colpipe.config.parts import Architecture, Shape, read_number
from colpipe.config.sizing import Endpoint, plan_shape
from colpipe.errors import ColpipeError
from colpipe.learngene.weights import Weights


def between(shape: Mapping[str, int] | Shape | str, small: Weights, large: Weights) -> dict[str, int]:
    """Size of every axis of a shape, or of the planned one of so many parameters (`220M`), between two neighbours."""
    return target_sizes(planned(shape, small, large) if isinstance(shape, str) else shape, large, small)


def within(shape: Mapping[str, int] | Shape | str, larger: Weights) -> dict[str, int]:
    """Size of every axis of a shape, or of one of so many parameters (`90M`), inside one model."""
    if isinstance(shape, str):
        parameters = parameters_of(shape)
        try:
            shape = plan_cut(_architecture(larger), endpoint_of(larger).shape, parameters)
        except ColpipeError as error:
            raise ColpipeError(f"{larger.name}: {error}") from None
    return target_sizes(shape, larger)


def target_sizes(shape: Mapping[str, int] | Shape, larger: Weights, *others: Weights) -> dict[str, int]:
    """Size of every axis of a shape, what it leaves out taken from a source; the vocabulary is cropped to the smallest."""
    given = dict(shape.model_dump() if isinstance(shape, Shape) else shape)
    sizes = larger.sizes
    if unknown := set(given) - set(Shape.model_fields):
        raise ColpipeError(f"shape: {', '.join(sorted(unknown))}: unknown; a shape has {', '.join(Shape.model_fields)}")
    if missing := {"layers", "heads", "hidden"} - set(given):
        raise ColpipeError(f"shape: {', '.join(sorted(missing))}: missing")
    own_dim = "head_dim" in larger.family.keys
    hidden, heads = given["hidden"], given["heads"]
    groups = given.get("kv_heads") or (heads // sizes["query"] if "group" in larger.family.keys else heads)
    return {
        "vocabulary": min(weights.sizes["vocabulary"] for weights in (larger, *others)),
        "position": min(weights.sizes["position"] for weights in (larger, *others)),
        "layer": given["layers"],
        "hidden": hidden,
        "qkv": 3,
        "head": heads,
        "group": max(groups, 1),
        "query": heads // max(groups, 1),
        "head_dim": given.get("head_dim") or (sizes["head_dim"] if own_dim else hidden // heads),
        "ffn": given.get("ffn") or proportional_units(hidden, sizes),
    }


def planned(parameters: str, small: Weights, large: Weights) -> Shape:
    """The shape of this many parameters (`220M`) between two neighbours.

    Raises:
        ColpipeError: it is no number, does not lie between them, or nothing comes within 1 %.
    """
    size, counts = parameters_of(parameters), [parameter_count(weights) for weights in (small, large)]
    if not counts[0] <= size <= counts[1]:
        raise ColpipeError(
            f"{parameters}: the neighbours have {counts[0]:,} and {counts[1]:,} parameters; ask between them"
        )
    return plan_shape(_architecture(large, small), endpoint_of(small), endpoint_of(large), size)


def parameters_of(text: str) -> int:
    """A number of parameters, `220M`.

    Raises:
        ColpipeError: it is none.
    """
    if (size := read_number(text)) is None:
        raise ColpipeError(f"shape {text!r}: give layers, heads and hidden, or parameters such as 220M, 500k, 1.5B")
    return size


def endpoint_of(weights: Weights) -> Endpoint:
    """A model's name and shape."""
    return Endpoint(weights.name, Shape.of(weights.sizes))


def _architecture(larger: Weights, *others: Weights) -> Architecture:
    sizes = target_sizes({"layers": 1, "heads": 1, "hidden": 1}, larger, *others)
    return Architecture(
        family=larger.family.name, vocabulary=sizes["vocabulary"], positions=sizes["position"], tied=larger.tied
    )


def parameter_count(weights: Weights, sizes: Mapping[str, int] | None = None) -> int:
    """Of a model, or of one of other sizes that is tied as it is."""
    return weights.family.parameters(sizes or weights.sizes, weights.tied)
