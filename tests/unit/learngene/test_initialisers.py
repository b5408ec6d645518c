"""The paper's baselines: what they keep, what they repeat, what is random."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from colpipe.errors import ColpipeError
from colpipe.hf.models import random_model
from colpipe.learngene.initialisers import hypercloning, learngene, make, rand, single
from colpipe.learngene.linit import take_subset
from colpipe.learngene.weights import Weights
from tests.unit.learngene.layouts import Side, interpolate, last_again, layout, stored
from tests.unit.learngene.tiny import GROUPED, assert_same, distance


def by_layer(assembly) -> dict[int | None, dict[str, torch.Tensor]]:
    """Layer, or None → name with `{layer}` → tensor."""
    tensors, layers = dict(assembly.tensors()), {}
    for name, layer, _ in layout(assembly.family.name, assembly.tied, assembly.sizes["layer"]):
        layers.setdefault(layer, {})[name] = tensors[name.format(layer=layer)]
    return layers


def test_single_repeats_the_last_indices(neighbours):
    target, chain = neighbours.between, neighbours.architecture
    side = Side(
        stored(neighbours.small_folder),
        neighbours.small_shape,
        last_again(neighbours.small_shape, target),
        [0, 1, 0, 1],
    )
    expected = interpolate(chain, target, side, side, [1.0] * 4)
    assembly = single(neighbours.weights[0], neighbours.sizes())
    assert_same({name: value.double() for name, value in assembly.tensors()}, expected)


@pytest.mark.parametrize("numbers", [(2, 4, 40), (2, 2, 60), (4, 6, 20), (3, 6, 60)], ids=str)
def test_hypercloning_keeps_the_function(neighbours, numbers):
    assembly = hypercloning(neighbours.weights[0], neighbours.sizes(*numbers))
    assert distance(assembly.load(), neighbours.small) < 1e-4


@pytest.mark.parametrize("family", GROUPED)
@pytest.mark.parametrize(("width", "hidden"), [(2, 16), (4, 8), (2, 24)])
def test_hypercloning_of_hidden_and_heads_apart(neighbours_of, family, width, hidden):
    neighbours = neighbours_of(family, True)
    assembly = hypercloning(neighbours.weights[0], neighbours.sizes(2, width, 20, hidden=hidden))
    assert distance(assembly.load(), neighbours.small) < 1e-4


def test_hypercloning_repeats_channels(llama):
    tensors = dict(hypercloning(llama.weights[0], llama.sizes(2, 4, 40)).tensors())
    embedding = llama.weights[0].read("model.embed_tokens.weight")
    assert torch.equal(tensors["model.embed_tokens.weight"], torch.cat([embedding, embedding], 1))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((2, 3, 20), "small: hidden is 8, the target's 12 is not a whole multiple of it; HyperCloning only multiplies"),
        ((2, 2, 30), "small: ffn is 20, the target's 30 is not a whole multiple"),
        ((1, 2, 20), "small: layer is 2, the target's 1 is less"),
        ((2, 1, 20), "small: hidden is 8, the target's 4 is less"),
    ],
)
def test_hypercloning_only_multiplies(neighbours, numbers, message):
    with pytest.raises(ColpipeError, match=message):
        hypercloning(neighbours.weights[0], neighbours.sizes(*numbers))


@pytest.mark.parametrize("depth", [3, 6])
@pytest.mark.parametrize("last", [False, True], ids=["auto", "vanilla"])
def test_learngene_layers_are_the_ancestors_and_the_others_random(neighbours, depth, last):
    ancestor, sizes = neighbours.weights[1], neighbours.sizes(depth, 4, 40)
    ours, again, other = (by_layer(learngene(ancestor, sizes, last, seed)) for seed in (1, 1, 2))
    theirs = by_layer(take_subset(ancestor, ancestor.sizes))
    origins = dict(zip(range(depth - 3, depth) if last else range(3), (2, 3, 4) if last else (0, 1, 2), strict=True))
    assert set(ours) == {None, *range(depth)}
    for layer, tensors in ours.items():
        assert_same(tensors, again[layer])
        if layer is None or layer in origins:
            assert_same(tensors, theirs[origins.get(layer)])
            continue
        for name, value in tensors.items():
            random = value.std() > 0  # norms start at 1, biases at 0
            assert torch.equal(value, other[layer][name]) != random, name
            assert not any(torch.equal(value, theirs[origin][name]) for origin in range(5)), name


def test_learngene_wants_the_ancestors_width_and_its_layers(neighbours):
    ancestor = neighbours.weights[1]
    with pytest.raises(
        ColpipeError, match=r"large: hidden is 16, the target's is 12; a layer of the ancestor is taken"
    ):
        learngene(ancestor, neighbours.sizes(4, 3, 40), last=False)
    with pytest.raises(ColpipeError, match=r"large: ffn is 40, the target's is 30"):
        learngene(ancestor, neighbours.sizes(4, 4, 30), last=True)
    with pytest.raises(ColpipeError, match=r"the target has 2 layers, 3 are taken from .*large"):
        learngene(ancestor, neighbours.sizes(2, 4, 40), last=True)


def test_an_ancestor_of_two_layers_gives_both(neighbours):
    ancestor = neighbours.weights[0]
    ours = by_layer(learngene(ancestor, neighbours.sizes(3, 2, 20), last=True))
    theirs = by_layer(take_subset(ancestor, ancestor.sizes))
    assert_same(ours[1], theirs[0])
    assert_same(ours[2], theirs[1])


def test_rand_is_the_initialisation_of_transformers(neighbours):
    chain = neighbours.architecture
    config = chain.configure(neighbours.between, 0)
    torch.manual_seed(3)
    expected = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
    assembly = rand(config, seed=3)
    assert_same(dict(assembly.tensors()), dict(rand(config, seed=3).tensors()))
    assert distance(assembly.load(), expected) == 0
    assert distance(rand(config, seed=4).load(), expected) > 0.01
    assert assembly.parameters == chain.parameters(neighbours.between)


def test_configurations_of_older_checkpoints_keep_their_meaning(neighbours_of, tmp_path):
    neox, llama = neighbours_of("gpt_neox", False), neighbours_of("llama", False)
    pythia = {"rotary_pct": 0.5, "rotary_emb_base": 500, "torch_dtype": "float16"}
    scaled = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled["original_max_position_embeddings"] = 8
    for neighbours, old in ((neox, pythia), (llama, {"rope_theta": 500.0, "rope_scaling": scaled})):
        config = {**neighbours.architecture.configure(neighbours.between, 0), **old}
        config.pop("rope_parameters")
        assembly = single(Weights(random_model(config, 0)), neighbours.sizes())
        written = tmp_path / config["model_type"]
        assembly.write(written)
        loaded, read = assembly.load(), AutoModelForCausalLM.from_pretrained(written)
        assert distance(loaded, random_model(config, 0).eval()) == distance(read, loaded) == 0
        assert read.config.rope_parameters["rope_theta"] == 500


def test_random_layers_are_of_the_kind_as_far_down(neighbours_of):
    neighbours = neighbours_of("qwen2", False)
    window = {"use_sliding_window": True, "sliding_window": 4}
    kinds = ["full_attention", "full_attention", "full_attention", "sliding_attention", "sliding_attention"]
    config = neighbours.architecture.configure(neighbours.large_shape, 0) | window | {"layer_types": kinds}
    source = Weights(random_model(config, 0))
    assert make("rand", source, neighbours.sizes(2, 4, 40)).config["layer_types"] == [kinds[0], kinds[2]]
    assert make("rand", source, source.sizes).load().config.layer_types == kinds
    vanilla = make("vanilla-learngene", source, neighbours.sizes(4, 4, 40))
    assert vanilla.config["layer_types"] == [kinds[0], *kinds[2:]]
