"""Submodels inside a member: logits of the stock model that is cut out, gradients by finite differences, shapes in range."""

import random
import re

import pytest
import torch

from colpipe.config.parts import Shape
from colpipe.config.stages import Elastic
from colpipe.errors import ColpipeError
from colpipe.learngene.elastic import ElasticMember, cut, random_sizes
from colpipe.learngene.weights import Weights
from colpipe.training.elastic import Submodels
from colpipe.training.projection import all_places
from tests.conftest import make_model
from tests.unit.learngene.tiny import FAMILIES, GROUPED, IDS, NAMES, NEWER, architecture, shape

EVERYWHERE = all_places(IDS)


@pytest.fixture(params=[*FAMILIES, *((family, True) for family in NEWER)], ids=[*NAMES, *NEWER])
def member(request, tmp_path):
    """(model, its chain's architecture, folder): 5 layers, 4 heads or groups, 40 units."""
    chain = architecture(*request.param)
    return make_model(tmp_path / "member", chain, shape(request.param[0], 5, 4, 40), seed=2), chain, tmp_path / "member"


def submodels_of(model, chain, compensate=1.0, **more) -> Submodels:
    smallest = shape(chain.family, 2, 1, 16)
    elastic = ElasticMember(chain.sizes(smallest), [0, 4], compensate, **more)
    return Submodels(model, elastic, Elastic(random=2), seed=0)


def shapes_of(chain) -> list[dict[str, int]]:
    """The smallest, one between, one that is narrow and deep, and the member itself."""
    return [chain.sizes(shape(chain.family, *numbers)) for numbers in ((2, 1, 16), (4, 3, 30), (5, 1, 40), (5, 4, 40))]


@pytest.mark.parametrize("compensate", [0.0, 1.0])
def test_a_part_is_the_model_that_is_cut_out(member, compensate, tmp_path):
    model, chain, folder = member
    hidden = shape(chain.family, 5, 4, 40).hidden
    energy = [((number + 1) / hidden) ** 0.5 for number in range(hidden)]
    submodels = submodels_of(model, chain, compensate, ranking=[3, 0, 4, 1, 2], energy=energy)
    for number, sizes in enumerate(shapes_of(chain)):
        with torch.no_grad():
            found = submodels.projection(sizes)({"input_ids": IDS}, EVERYWHERE)
            logits = found.hidden @ found.weight.T
        cut(Weights(folder), sizes, submodels.elastic).write(tmp_path / str(number))
        stock = type(model).from_pretrained(tmp_path / str(number)).eval()
        with torch.no_grad():
            expected = stock(IDS).logits[:, :-1].flatten(0, 1)
        assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


WINDOWS = {"use_sliding_window": True, "sliding_window": 3}
KINDS = [f"{kind}_attention" for kind in ("full", "sliding", "full", "full", "sliding")]


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("qwen3", {**WINDOWS, "layer_types": KINDS}),
        ("gemma3_text", {"sliding_window": 3, "layer_types": KINDS}),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 0, 0]}),
    ],
)
def test_layers_of_a_part_keep_what_they_are(family, more, tmp_path):
    chain = architecture(family, True).model_copy(update={"config": more})
    model = make_model(tmp_path / "member", chain, shape(family, 5, 4, 40), seed=2)
    submodels = submodels_of(model, chain, ranking=[3, 0, 4, 1, 2])
    sizes = chain.sizes(shape(family, 3, 2, 20))  # layers 0, 3, 4
    stock = cut(Weights(model), sizes, submodels.elastic).load()
    if "layer_types" in more:
        assert stock.config.layer_types == [KINDS[layer] for layer in (0, 3, 4)]
    if "no_rope_layers" in more:
        assert stock.config.no_rope_layers == [1, 0, 0]
    with torch.no_grad():
        found = submodels.projection(sizes)({"input_ids": IDS}, EVERYWHERE)
        expected = stock(IDS).logits[:, :-1].flatten(0, 1)
    assert (found.hidden @ found.weight.T - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_gradients_are_those_of_finite_differences(member):
    """In float64: the slope of a part's loss along random directions, among the member's own parameters.

    RMSNorm models compute their norms in float32 whatever they are given, so that their differences are rougher.
    """
    model, chain, _ = member
    model = model.double()
    submodels = submodels_of(model, chain)
    sizes, targets = shapes_of(chain)[1], IDS[:, 1:].flatten()

    def loss() -> torch.Tensor:
        found = submodels.projection(sizes)({"input_ids": IDS}, EVERYWHERE)
        return torch.nn.functional.cross_entropy(found.hidden @ found.weight.T, targets)

    loss().backward()
    rough = chain.table.norm == "rms"
    step, tolerance = (1e-3, {"rel": 1e-3, "abs": 1e-3}) if rough else (1e-5, {"rel": 1e-5, "abs": 1e-8})
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        direction, slope = torch.randn_like(parameter), torch.zeros_like(parameter)
        if parameter.grad is not None:
            slope = parameter.grad
        values = {}
        for steps in (2, 1, -1, -2):
            with torch.no_grad():
                parameter.add_(direction, alpha=steps * step)
                values[steps] = loss().item()
                parameter.sub_(direction, alpha=steps * step)
        near, far = ((values[steps] - values[-steps]) / (2 * steps * step) for steps in (1, 2))
        found, expected = (slope * direction).sum().item(), (4 * near - far) / 3  # Richardson: of fourth order
        assert found == pytest.approx(expected, **tolerance), name


def test_gradients_are_those_of_the_stock_model(member, tmp_path):
    """The member's gradient, cut as the member is, is the stock model's; norm gains times their factor."""
    model, chain, folder = member
    submodels = submodels_of(model, chain)
    sizes = shapes_of(chain)[1]
    cut(Weights(folder), sizes, submodels.elastic).write(tmp_path / "stock")
    stock = type(model).from_pretrained(tmp_path / "stock")
    found = submodels.projection(sizes)({"input_ids": IDS}, EVERYWHERE)
    (found.hidden @ found.weight.T).sin().sum().backward()
    stock(IDS).logits[:, :-1].sin().sum().backward()
    _, gain = submodels.elastic.submodel(submodels.family, submodels.sizes, sizes)
    assert gain == 4 / 3
    for parameter in model.parameters():  # slices of the gradients in place of the weights
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    names, own = Weights(stock).stored_names, dict(stock.named_parameters())
    for name, slope in submodels_of(model, chain, 0.0).slices(sizes).items():
        expected = own[names.get(name, name)].grad
        pattern = re.sub(r"\.\d+\.", ".{layer}.", name)
        inside = submodels.family.fused.get(pattern, [pattern])
        if submodels.family.tensors[inside[0]].role == "gain":
            expected = expected * gain
        widths = (
            submodels.sizes["hidden"],
            sizes["hidden"],
        )  # Gemma's embedding: once for the weight, once for its gradient
        scale = [submodels.family.factor(inside[0], width, submodels.tied) for width in widths]
        if scale[0] != scale[1] and submodels.family.tensors[inside[0]].offset:
            continue  # the final gain, which makes up for it: a slice of a gradient is none of it there
        expected = expected * (scale[0] / scale[1]) ** 2
        torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_what_a_part_does_not_have_gets_no_gradient(member):
    model, chain, _ = member
    submodels = submodels_of(model, chain)
    found = submodels.projection(submodels.smallest)({"input_ids": IDS}, EVERYWHERE)
    (found.hidden @ found.weight.T).square().sum().backward()
    for name, parameter in model.named_parameters():
        if any(f".{layer}." in name for layer in (1, 2, 3)):
            assert parameter.grad is None, name  # layers 0 and 4 are kept


def test_slices_are_views_where_they_can_be(member):
    model, chain, _ = member
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = shapes_of(chain)[1]
    slices = submodels_of(model, chain, 0.0).slices(sizes)
    copied = {name for name, value in slices.items() if value.untyped_storage().data_ptr() not in own}
    # Queries, keys and values in one tensor are several runs of heads; Gemma's embedding has another scale at another width.
    expected = {"gpt2": "c_attn", "phi3": "_proj", "gemma3_text": "embed_tokens model.norm.weight"}.get(
        chain.family, ""
    )
    assert all(any(part in name for part in expected.split()) for name in copied)


def test_shapes_are_drawn_in_range_and_by_the_step_alone(member):
    model, chain, _ = member
    one, other = submodels_of(model, chain), submodels_of(model, chain)
    drawn = [sizes for step in range(40) for sizes in one.at(step, 40)]
    assert drawn == [sizes for step in range(40) for sizes in other.at(step, 40)]
    assert len(drawn) == 120 and drawn[::3] == [one.smallest] * 40
    for axis in ("layer", *one.family.widths):
        values = {sizes[axis] for sizes in drawn}
        assert min(values) == one.smallest[axis] and max(values) == one.sizes[axis]
    assert {sizes["layer"] for sizes in drawn} == {2, 3, 4, 5}
    assert all(one.family.shape_problem(sizes) is None for sizes in drawn)


def test_joint_widths_go_together_and_axes_can_be_held():
    chain = architecture("qwen3", False)
    largest, smallest = (chain.sizes(shape("qwen3", *numbers)) for numbers in ((6, 8, 160), (2, 2, 40)))
    for number in range(30):
        sizes = random_sizes(chain.table, largest, smallest, random.Random(number), joint=True)
        assert abs((sizes["group"] - 2) / 6 - (sizes["ffn"] - 40) / 120) <= 0.15
        held = random_sizes(chain.table, largest, smallest, random.Random(number), axes=["layers", "ffn"])
        assert (held["group"], held["hidden"]) == (8, largest["hidden"])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", *GROUPED])
@pytest.mark.parametrize("align", [None, 32])
def test_random_shapes_of_real_widths_can_be_quantised(family, align):
    chain = architecture(family, True)
    largest, smallest = (
        chain.sizes(
            Shape(
                layers=15,
                heads=3 * size,
                kv_heads=size * (1 if family in GROUPED else 3),
                hidden=192 * size,
                ffn=512 * size,
            )
        )
        for size in (3, 2)
    )
    drawn = [random_sizes(chain.table, largest, smallest, random.Random(seed), align=align) for seed in range(200)]
    step = align or 64
    assert all(sizes["hidden"] % step == sizes["ffn"] % step == 0 for sizes in drawn)
    assert all(chain.table.shape_problem(sizes) is None for sizes in drawn)
    assert len({sizes["ffn"] for sizes in drawn}) == 512 // step + 1 and len({sizes["hidden"] for sizes in drawn}) > 1


def test_a_target_below_what_was_trained_is_refused(member):
    model, chain, folder = member
    elastic = submodels_of(model, chain).elastic
    with pytest.raises(ColpipeError, match="its smallest trained shape has layer 2, the target 1"):
        cut(Weights(folder), chain.sizes(shape(chain.family, 1, 1, 16)), elastic)
    assert chain.family in ("gpt2", "gpt_neox", *GROUPED, *NEWER)


def test_parts_may_join_later(member):
    model, chain, _ = member
    submodels = submodels_of(model, chain)
    submodels.settings = Elastic(random=2, after=0.5)
    assert [len(submodels.at(step, 10)) for step in range(10)] == [0] * 5 + [3] * 5
