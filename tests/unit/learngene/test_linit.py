"""LInit against plain loops over single numbers, in every family."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from colpipe.config.parts import Shape
from colpipe.errors import ColpipeError
from colpipe.learngene.initialisers import single
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.weights import Weights
from tests.conftest import make_model
from tests.unit.learngene.layouts import Side, interpolate, last_again, same_index, stored
from tests.unit.learngene.tiny import GROUPED, architecture, assert_same, distance, shape

ALPHAS = [0.0, 0.3, 1.0, [0.9, 0.1, 0.5, 0.0]]


def reference(neighbours, chain, alpha, pick, small_layers, large_layers, gain=1.0) -> dict:
    target = neighbours.between
    small = Side(stored(neighbours.small_folder), neighbours.small_shape, pick, small_layers)
    large = Side(
        stored(neighbours.large_folder), neighbours.large_shape, same_index(neighbours.large_shape), large_layers
    )
    alphas = alpha if isinstance(alpha, list) else [alpha] * target.layers
    return interpolate(chain, target, small, large, alphas, gain)


def change_config(folder: Path, **changes) -> None:
    """Set keys, or with None take them away."""
    path = folder / "config.json"
    changed = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))


def assert_close(assembly, expected: dict) -> None:
    tensors = dict(assembly.tensors())
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name].double(), value, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_paper(neighbours, alpha):
    target = neighbours.between
    chain = neighbours.architecture.model_copy(update={"vocabulary": 47, "positions": 13})  # cropped to its first rows
    pick = last_again(neighbours.small_shape, target)
    expected = reference(neighbours, chain, alpha, pick, [0, 1, 0, 1], [0, 1, 2, 3])
    assert_close(linit(*neighbours.weights, chain.sizes(target), alpha, "paper"), expected)


@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_nested(neighbours, alpha):
    target, chain = neighbours.between, neighbours.architecture
    pick = same_index(neighbours.small_shape)
    expected = reference(neighbours, chain, alpha, pick, [0, None, 1, None], [0, 1, 3, 4])
    assembly = linit(*neighbours.weights, chain.sizes(target), alpha, "nested", layer_map=[0, 3])
    assert_close(assembly, expected)
    assert assembly.details["index_maps"]["larger"]["layer"] == [0, 1, 3, 4]


def test_neighbours_that_do_not_descend_from_each_other_are_matched_evenly(llama):
    pick = same_index(llama.small_shape)
    expected = reference(llama, llama.architecture, 0.3, pick, [0, None, None, 1], [0, 1, 3, 4])
    assert_close(linit(*llama.weights, llama.sizes(), 0.3, "nested"), expected)


@pytest.mark.parametrize("layer_map", [[0], [0, 1, 2], [0, 5]], ids=str)
def test_a_layer_map_of_other_neighbours_is_refused(llama, layer_map):
    with pytest.raises(ColpipeError, match=r"layer_map \[0.*has 2 layers, .*large.* 5; it gives a layer"):
        linit(*llama.weights, llama.sizes(), 0.3, "nested", layer_map=layer_map)


@pytest.mark.parametrize("method", ["paper", "nested", "lossless", "aligned"])
def test_the_size_of_the_parts_changes_nothing(neighbours, method, monkeypatch):
    in_one = dict(linit(*neighbours.weights, neighbours.sizes(), 0.3, method).tensors())
    monkeypatch.setattr("colpipe.learngene.linit.PART", 100)
    assert_same(dict(linit(*neighbours.weights, neighbours.sizes(), 0.3, method).tensors()), in_one)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_compensation_makes_up_for_the_channels_that_the_larger_lost(neighbours, exponent):
    gain = (neighbours.large_shape.hidden / neighbours.between.hidden) ** exponent
    chain, sizes = neighbours.architecture, neighbours.sizes()
    pick = last_again(neighbours.small_shape, neighbours.between)
    expected = reference(neighbours, chain, 0.3, pick, [0, 1, 0, 1], [0, 1, 2, 3], gain)
    assert_close(linit(*neighbours.weights, sizes, 0.3, "paper", exponent), expected)
    pick = same_index(neighbours.small_shape)
    expected = reference(neighbours, chain, 0.3, pick, [0, None, 1, None], [0, 1, 3, 4], gain)
    assert_close(linit(*neighbours.weights, sizes, 0.3, "nested", exponent, layer_map=[0, 3]), expected)


def test_paper_ends_at_the_expanded_smaller_and_the_subset_of_the_larger(neighbours):
    small, large = neighbours.weights
    expanded, subset = single(small, neighbours.sizes()), take_subset(large, neighbours.sizes(), "first")
    assert_same(dict(linit(small, large, neighbours.sizes(), 1.0).tensors()), dict(expanded.tensors()))
    assert_same(dict(linit(small, large, neighbours.sizes(), 0.0).tensors()), dict(subset.tensors()))


@pytest.mark.parametrize("method", ["nested", "lossless"])
def test_alpha_0_is_the_subset_of_the_larger(neighbours, method):
    small, large = neighbours.weights
    assembly = linit(small, large, neighbours.sizes(), 0.0, method, layer_map=[0, 4])
    subset = take_subset(large, neighbours.sizes(), "rank", ranking=[0, 1, 3, 4, 2])
    assert_same(dict(assembly.tensors()), dict(subset.tensors()))
    assert large.family.epsilon(assembly.config) == large.family.epsilon(large.config)


@pytest.mark.parametrize("method", ["paper", "nested", "lossless"])
def test_equal_shapes_give_back_the_neighbours(neighbours, method):
    small, large = neighbours.weights
    as_large = linit(small, large, large.sizes, 0.0, method)
    assert_same(dict(as_large.tensors()), stored(neighbours.large_folder))
    as_small = linit(small, large, small.sizes, 1.0, method)
    assert_same(dict(as_small.tensors()), stored(neighbours.small_folder))


@pytest.mark.parametrize("numbers", [(3, 2, 20), (2, 3, 20), (2, 2, 33), (4, 3, 30), (5, 4, 40)], ids=str)
def test_lossless_at_alpha_1_is_the_smaller_model(neighbours, numbers):
    small, large = neighbours.weights
    target = neighbours.sizes(*numbers)
    assert distance(linit(small, large, target, 1.0, "lossless").load(), neighbours.small) < 1e-4
    assert distance(single(small, target, "lossless").load(), neighbours.small) < 1e-4


@pytest.mark.parametrize("family", GROUPED)
@pytest.mark.parametrize(("width", "hidden"), [(2, 16), (2, 12), (4, 8)])
def test_lossless_where_hidden_and_heads_grow_apart(neighbours_of, family, width, hidden):
    neighbours = neighbours_of(family, True)
    assembly = linit(*neighbours.weights, neighbours.sizes(3, width, 20, hidden=hidden), 1.0, "lossless")
    assert distance(assembly.load(), neighbours.small) < 1e-4


def test_only_lossless_is_the_smaller_model(neighbours):
    for method in ("paper", "nested"):
        assert distance(linit(*neighbours.weights, neighbours.sizes(), 1.0, method).load(), neighbours.small) > 0.01


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2"])  # qwen3 uses the epsilon inside heads, too
def test_lossless_thins_the_epsilon_as_the_variance(neighbours_of, family, tmp_path):
    neighbours = neighbours_of(family, True)
    small, large = neighbours.weights
    shutil.copytree(neighbours.small_folder, tmp_path / "small")
    change_config(tmp_path / "small", **{small.family.epsilon(small.config)[0]: 0.05})
    small, model = Weights(tmp_path / "small"), AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert distance(model, neighbours.small) > 1e-3
    assert distance(linit(small, large, neighbours.sizes(), 1.0, "lossless").load(), model) < 1e-4
    assert distance(single(small, neighbours.sizes(), "lossless").load(), model) < 1e-4


@pytest.mark.parametrize("method", ["nested", "lossless"])
def test_a_vocabulary_mixed_some_rows_at_a_time_is_the_same(neighbours, method, monkeypatch):
    expected = dict(linit(*neighbours.weights, neighbours.sizes(), 0.3, method, 0.5).tensors())
    monkeypatch.setattr("colpipe.learngene.linit.ROWS", 7, raising=False)
    assert_same(dict(linit(*neighbours.weights, neighbours.sizes(), 0.3, method, 0.5).tensors()), expected)


def test_an_untied_larger_and_a_tied_smaller_give_an_untied_model(neighbours_of):
    tied, untied = neighbours_of("llama", True), neighbours_of("llama", False)
    assembly = linit(Weights(tied.small_folder), Weights(untied.large_folder), untied.sizes(), 1.0, "lossless")
    assert distance(assembly.load(), tied.small) < 1e-4  # the smaller's embedding serves as its head
    assert not assembly.tied and not assembly.config["tie_word_embeddings"]
    with pytest.raises(ColpipeError, match=r"large ties its head to the embedding, .*small does not"):
        linit(Weights(untied.small_folder), Weights(tied.large_folder), tied.sizes(), 0.5)


def test_a_subset_takes_evenly_spaced_layers_and_leading_channels(gpt2):
    large = stored(gpt2.large_folder)
    assembly = take_subset(Weights(gpt2.large_folder), gpt2.sizes(3, 2, 20))
    tensors = dict(assembly.tensors())
    assert assembly.details["layer_map"] == [0, 2, 4]
    assert torch.equal(tensors["transformer.h.1.mlp.c_fc.weight"], large["transformer.h.2.mlp.c_fc.weight"][:8, :20])
    keys = large["transformer.h.4.attn.c_attn.weight"][:8, 16:24]  # the first two heads' keys of four
    assert torch.equal(tensors["transformer.h.2.attn.c_attn.weight"][:, 8:16], keys)
    doubled = dict(take_subset(Weights(gpt2.large_folder), gpt2.sizes(3, 2, 20), gain=2.0).tensors())
    changed = {name for name in tensors if not torch.equal(tensors[name], doubled[name])}
    assert changed == {name for name in tensors if "ln_" in name and name.endswith("weight")}
    with pytest.raises(ColpipeError, match="its head is not tied to the embedding"):
        untied = make_model(gpt2.large_folder.parent / "untied", architecture("gpt2", False), gpt2.small_shape, 0)
        take_subset(Weights(untied), gpt2.sizes(2, 2, 20), tied=True)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((6, 4, 40), "large: layer is 5, the target's 6 is more than that"),
        ((4, 5, 40), "large: hidden is 16, the target's 20 is more than that"),
        ((4, 4, 41), "large: ffn is 40, the target's 41 is more than that"),
        ((1, 5, 40), "large: hidden is 16, the target's 20 is more than that"),  # shallower than both, and wider
    ],
)
@pytest.mark.parametrize("method", ["paper", "nested", "lossless", "aligned"])
def test_a_target_above_the_larger_is_refused(neighbours, numbers, message, method):
    with pytest.raises(ColpipeError, match=message):
        linit(*neighbours.weights, neighbours.sizes(*numbers), 0.5, method)


def test_more_heads_than_the_larger_has_are_refused(llama, gpt2):
    with pytest.raises(ColpipeError, match="large: group is 4, the target's 5 is more than that"):
        linit(*llama.weights, {**llama.sizes(), "hidden": 10, "head": 10, "group": 5}, 0.5)
    with pytest.raises(ColpipeError, match="the target: gpt2 has no head_dim of its own"):
        linit(*gpt2.weights, {**gpt2.sizes(), "head": 5, "group": 5}, 0.5)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((1, 3, 30), "small: layer is 2, the target's 1 is less"),
        ((3, 1, 30), "small: hidden is 8, the target's 4 is less"),
        ((3, 3, 19), "small: ffn is 20, the target's 19 is less"),
    ],
)
def test_a_lossless_target_below_the_smaller_is_refused(neighbours, numbers, message):
    with pytest.raises(ColpipeError, match=f"{message}: it cannot grow to that losslessly"):
        linit(*neighbours.weights, neighbours.sizes(*numbers), 0.5, "lossless")
    with pytest.raises(ColpipeError, match=message):
        single(neighbours.weights[0], neighbours.sizes(*numbers), "lossless")
    linit(*neighbours.weights, neighbours.sizes(*numbers), 0.5, "nested")  # which has no such limit


def test_heads_of_another_width_are_refused(tmp_path, gpt2, llama):
    make_model(tmp_path / "wide", architecture("gpt2", True), Shape(layers=2, heads=1, hidden=8), 0)
    with pytest.raises(ColpipeError, match=r"wide: head_dim is 8, the target's is 4; heads are taken whole"):
        linit(Weights(tmp_path / "wide"), gpt2.weights[1], gpt2.sizes(), 0.5)
    with pytest.raises(ColpipeError, match=r"large: head_dim is 4, the target's is 2; heads are taken whole"):
        linit(*llama.weights, {**llama.sizes(), "head_dim": 2}, 0.5)


def test_groups_of_another_size_are_refused(tmp_path, llama):
    four_queries = Shape(layers=2, heads=8, kv_heads=2, head_dim=4, hidden=8, ffn=20)
    make_model(tmp_path / "other", llama.architecture, four_queries, 0)
    message = r"other: has 4 query heads per key/value head \(group\), the target 2"
    with pytest.raises(ColpipeError, match=message):
        linit(Weights(tmp_path / "other"), llama.weights[1], llama.sizes(), 0.5)
    with pytest.raises(ColpipeError, match="heads 6 is not a multiple of kv_heads 4"):
        linit(*llama.weights, {**llama.sizes(), "group": 4}, 0.5)


@pytest.mark.parametrize(("axis", "size"), [("vocabulary", 50), ("position", 16)])
def test_tokens_and_positions_that_a_source_lacks_are_refused(gpt2, tmp_path, axis, size):
    with pytest.raises(ColpipeError, match=f"large: {axis} is {size}, the target's {size + 1} is more than that"):
        linit(*gpt2.weights, {**gpt2.sizes(), axis: size + 1}, 0.5)
    few = {"vocabulary": size - 1} if axis == "vocabulary" else {"positions": size - 1}
    make_model(tmp_path / "few", gpt2.architecture.model_copy(update=few), shape("gpt2", 2, 2, 20), 0)
    with pytest.raises(ColpipeError, match=f"few: {axis} is {size - 1}, the target's {size} is more than that"):
        linit(Weights(tmp_path / "few"), gpt2.weights[1], gpt2.sizes(), 0.5)


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        ([0.5, 0.5], "alpha has 2 values, the DesNet has 4 layers; give one number or one per layer"),
        ([0.5] * 5, "alpha has 5 values, the DesNet has 4 layers"),
        (1.5, "must lie between 0 and 1"),
        ([0.5, 0.5, -0.1, 0.5], "must lie between 0 and 1"),
        ("best", "alpha"),  # as many letters as layers
    ],
)
def test_an_alpha_that_does_not_fit_is_refused(gpt2, alpha, message):
    with pytest.raises(ColpipeError, match=message):
        linit(*gpt2.weights, gpt2.sizes(), alpha)


OLDER = {"rope_parameters": None}  # what older checkpoints say in other keys


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
        ("gpt_neox", {"use_parallel_residual": False}),
        ("llama", {**OLDER, "rope_theta": 500.0}),
        ("llama", {**OLDER, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("gpt_neox", {**OLDER, "rotary_pct": 1.0, "rotary_emb_base": 10000}),
        ("gpt_neox", {**OLDER, "rotary_pct": 0.5, "rotary_emb_base": 500}),
    ],
    ids=["rope_parameters", "use_parallel_residual", "rope_theta", "rope_scaling", "rotary_pct", "rotary_emb_base"],
)
def test_neighbours_that_turn_or_add_up_differently_are_refused(neighbours_of, tmp_path, family, change):
    neighbours = neighbours_of(family, False)
    shutil.copytree(neighbours.small_folder, tmp_path / "small")
    change_config(tmp_path / "small", **change)
    with pytest.raises(ColpipeError, match=r"neighbours must agree"):
        linit(Weights(tmp_path / "small"), neighbours.weights[1], neighbours.sizes(), 0.5)


def test_two_ways_to_write_one_configuration_are_no_difference(neighbours_of, tmp_path):
    older = {"llama": {"rope_theta": 10000.0}, "gpt_neox": {"rotary_pct": 0.5, "rotary_emb_base": 10000}}
    for family, change in older.items():
        neighbours = neighbours_of(family, False)
        shutil.copytree(neighbours.small_folder, tmp_path / family)
        change_config(tmp_path / family, **OLDER, **change)
        assembly = linit(Weights(tmp_path / family), neighbours.weights[1], neighbours.sizes(), 1.0, "lossless")
        assert distance(assembly.load(), neighbours.small) < 1e-4


def test_another_family_and_an_unknown_method_are_refused(gpt2, llama):
    with pytest.raises(ColpipeError, match=r"small is llama, .*large is gpt2: neighbours share a family"):
        linit(llama.weights[0], gpt2.weights[1], gpt2.sizes(), 0.5)
    with pytest.raises(ColpipeError, match="method 'mean': known are paper, nested, lossless, aligned"):
        linit(*gpt2.weights, gpt2.sizes(), 0.5, "mean")
