"""Alignment undoes a shuffle of channels, heads and units."""

import random

import pytest
import torch
from safetensors.torch import save_file

from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.weights import Weights
from tests.unit.learngene.layouts import layout, length, origin, stored
from tests.unit.learngene.tiny import GROUPED, assert_same, distance


@pytest.fixture
def shuffled(neighbours, tmp_path) -> Weights:
    """The larger neighbour with its channels in another order and, in each layer, its heads (or groups) and units."""
    chance, shape, chain = random.Random(0), neighbours.large_shape, neighbours.architecture
    hidden = chance.sample(range(shape.hidden), shape.hidden)
    orders = []
    for _ in range(shape.layers):
        of_heads = chance.sample(range(shape.kv_heads), shape.kv_heads)
        of_units = chance.sample(range(shape.ffn), shape.ffn)
        orders.append({"heads": of_heads, "kv_heads": of_heads, "ffn": of_units})
    tensors, moved = stored(neighbours.large_folder), {}
    for name, layer, dimensions in layout(chain.family, chain.is_tied, shape.layers):
        name, value = name.format(layer=layer), tensors[name.format(layer=layer)]
        order = {"hidden": hidden} | ({} if layer is None else orders[layer])
        for number, dimension in enumerate(dimensions):
            count = length(dimension, shape, chain.vocabulary, chain.positions)
            came_from = [origin(dimension, i, shape, shape, lambda axis, i: order[axis][i]) for i in range(count)]  # noqa: B023
            value = value.index_select(number, torch.tensor(came_from))
        moved[name] = value.contiguous()
    save_file(moved, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((neighbours.large_folder / "config.json").read_text())
    return Weights(tmp_path)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_shuffled_copy_of_itself_is_recovered_exactly(neighbours, shuffled, alpha):
    large, layers = neighbours.weights[1], range(5)
    assembly = linit(large, shuffled, large.sizes, alpha, "aligned", layer_map=layers)
    assert_same(dict(assembly.tensors()), stored(neighbours.large_folder))
    as_it_is = linit(large, shuffled, large.sizes, 0.0, "nested", layer_map=layers)
    assert not torch.equal(dict(as_it_is.tensors())[NORM[large.family.name]], large.read(NORM[large.family.name]))


NORM = {
    "gpt2": "transformer.ln_f.weight",
    "gpt_neox": "gpt_neox.final_layer_norm.weight",
    **dict.fromkeys(GROUPED, "model.norm.weight"),
}


def test_a_part_of_itself_is_found_in_a_shuffled_copy(neighbours, shuffled, tmp_path):
    small, large = neighbours.weights
    part = take_subset(large, small.sizes, "even")  # layers 0 and 4
    part.write(tmp_path / "part")
    found = linit(Weights(tmp_path / "part"), shuffled, small.sizes, 0.0, "aligned")
    assert_same(dict(found.tensors()), dict(part.tensors()))


def test_what_has_no_partner_keeps_its_order_and_its_function(neighbours, shuffled, tmp_path):
    small, large = neighbours.weights
    take_subset(large, small.sizes).write(tmp_path / "part")
    part = Weights(tmp_path / "part")
    whole = linit(part, shuffled, large.sizes, 0.0, "aligned")  # nothing cut, nothing mixed: only an order
    assert distance(whole.load(), neighbours.large) < 1e-5
    mixed = linit(part, shuffled, large.sizes, 0.5, "aligned")  # mixed with what it is itself
    assert distance(mixed.load(), neighbours.large) < 1e-5
    assert all(len(order) == 40 for order in whole.details["index_maps"]["larger"]["ffn"] if order != 40)
