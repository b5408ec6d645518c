"""LInit against a reference written with plain loops over single numbers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from colpipe.errors import ColpipeError
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.weights import write_model
from colpipe.settings import Architecture, Shape
from tests.conftest import make_gpt2

ARCHITECTURE = Architecture(vocabulary=50, positions=16)
HEAD_DIM = 4


def sizes(layers: int, heads: int, hidden: int) -> dict:
    return ARCHITECTURE.sizes(Shape(layers=layers, heads=heads, hidden=hidden))


@pytest.fixture
def pair(tmp_path):
    """A smaller model of 2 layers, 2 heads, 8 channels and a larger one of 5, 4 and 16."""
    small = make_gpt2(tmp_path / "small", 2, 2, 8, seed=1).state_dict()
    large = make_gpt2(tmp_path / "large", 5, 4, 16, seed=2).state_dict()
    return tmp_path / "small", tmp_path / "large", small, large


def qkv_index(part: int, head: int, inside: int, heads: int) -> int:
    """Column of GPT-2's fused c_attn: queries of all heads, then keys, then values."""
    return part * heads * HEAD_DIM + head * HEAD_DIM + inside


def reference(small, large, layer_of_small, layer_of_large, target, pick_small, pick_large, alpha):
    """θ[i…] = α·small + (1−α)·large one number at a time; pick_* map a target index to a source index or None."""
    layers, heads, hidden = target
    small_heads, large_heads = 2, 4

    def mix(a, b):
        return b if a is None else alpha * a + (1 - alpha) * b

    def value(state, name, layer, picks, indices):
        if any(pick is None for pick in picks) or layer is None:
            return None
        return state[name.format(layer=layer)][tuple(indices)].item()

    result = {}
    for layer in range(layers):
        ls, ll = layer_of_small(layer), layer_of_large(layer)
        weight = torch.zeros(hidden, 3 * heads * HEAD_DIM)
        for row in range(hidden):
            for part in range(3):
                for head in range(heads):
                    for inside in range(HEAD_DIM):
                        rs, rl = pick_small(row, 8), pick_large(row, 16)
                        hs, hl = pick_small(head, 2), pick_large(head, 4)
                        name = "transformer.h.{layer}.attn.c_attn.weight"
                        a = value(small, name, ls, (rs, hs), (rs, qkv_index(part, hs or 0, inside, small_heads)))
                        b = value(large, name, ll, (rl, hl), (rl, qkv_index(part, hl, inside, large_heads)))
                        weight[row, qkv_index(part, head, inside, heads)] = mix(a, b)
        result[f"transformer.h.{layer}.attn.c_attn.weight"] = weight
        weight = torch.zeros(heads * HEAD_DIM, hidden)
        for head in range(heads):
            for inside in range(HEAD_DIM):
                for column in range(hidden):
                    hs, hl = pick_small(head, 2), pick_large(head, 4)
                    cs, cl = pick_small(column, 8), pick_large(column, 16)
                    name = "transformer.h.{layer}.attn.c_proj.weight"
                    a = value(small, name, ls, (hs, cs), ((hs or 0) * HEAD_DIM + inside, cs))
                    b = value(large, name, ll, (hl, cl), (hl * HEAD_DIM + inside, cl))
                    weight[head * HEAD_DIM + inside, column] = mix(a, b)
        result[f"transformer.h.{layer}.attn.c_proj.weight"] = weight
        weight = torch.zeros(4 * hidden, hidden)
        for unit in range(4 * hidden):
            for column in range(hidden):
                us, ul = pick_small(unit, 32), pick_large(unit, 64)
                cs, cl = pick_small(column, 8), pick_large(column, 16)
                name = "transformer.h.{layer}.mlp.c_proj.weight"
                a = value(small, name, ls, (us, cs), (us, cs))
                weight[unit, column] = mix(a, value(large, name, ll, (ul, cl), (ul, cl)))
        result[f"transformer.h.{layer}.mlp.c_proj.weight"] = weight
        gain = torch.zeros(hidden)
        for channel in range(hidden):
            cs, cl = pick_small(channel, 8), pick_large(channel, 16)
            name = "transformer.h.{layer}.ln_1.weight"
            gain[channel] = mix(value(small, name, ls, (cs,), (cs,)), value(large, name, ll, (cl,), (cl,)))
        result[f"transformer.h.{layer}.ln_1.weight"] = gain
    embedding = torch.zeros(50, hidden)
    for token in range(50):
        for channel in range(hidden):
            cs, cl = pick_small(channel, 8), pick_large(channel, 16)
            name = "transformer.wte.weight"
            a = value(small, name, 0, (cs,), (token, cs))
            embedding[token, channel] = mix(a, value(large, name, 0, (cl,), (token, cl)))
    result["transformer.wte.weight"] = embedding
    return result


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_paper(pair, alpha):
    small_folder, large_folder, small, large = pair
    target = (4, 3, 12)
    axis_size = {8: 12, 2: 3, 32: 48}  # source size → target size

    def last_again(index, size):
        grown = axis_size[size] - size
        return index if index < size else index - grown

    expected = reference(
        small,
        large,
        lambda layer: layer if layer < 2 else layer - 2,  # 0 1 0 1: the last two layers again
        lambda layer: layer,
        target,
        last_again,
        lambda index, size: index,
        alpha,
    )
    tensors, config, _ = linit(small_folder, large_folder, sizes(*target), alpha, "paper")
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value, rtol=1e-6, atol=1e-6, msg=name)
    assert (config["n_layer"], config["n_head"], config["n_embd"], config["n_inner"]) == (4, 3, 12, 48)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_nested(pair, alpha):
    small_folder, large_folder, small, large = pair
    target, layer_map, kept = (4, 3, 12), [0, 3], [0, 1, 3, 4]
    expected = reference(
        small,
        large,
        lambda layer: {0: 0, 3: 1}.get(kept[layer]),
        lambda layer: kept[layer],
        target,
        lambda index, size: index if index < size else None,
        lambda index, size: index,
        alpha,
    )
    tensors, _, maps = linit(small_folder, large_folder, sizes(*target), alpha, "nested", layer_map)
    assert maps["larger"]["layer"] == kept
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_the_result_is_a_stock_model_that_stays_tied(pair, tmp_path):
    small_folder, large_folder, *_ = pair
    tensors, config, _ = linit(small_folder, large_folder, sizes(4, 3, 12), 0.5, "nested")
    write_model(tensors, config, tmp_path / "desnet")
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "desnet", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert again.lm_head.weight.data_ptr() == again.transformer.wte.weight.data_ptr()
    ids = torch.arange(10)[None]
    torch.testing.assert_close(model(ids).logits, again(ids).logits)


@pytest.mark.parametrize("method", ["paper", "nested"])
def test_equal_shapes_give_back_the_neighbours(pair, method):
    small_folder, large_folder, small, large = pair
    as_large = linit(small_folder, large_folder, sizes(5, 4, 16), 0.0, method)[0]
    assert all(torch.equal(as_large[name], large[name]) for name in as_large)
    as_small = linit(small_folder, large_folder, sizes(2, 2, 8), 1.0, method)[0]
    assert all(torch.equal(as_small[name], small[name]) for name in as_small)


def test_same_inputs_same_bytes(pair, tmp_path):
    for number in range(2):
        tensors, config, _ = linit(*pair[:2], sizes(3, 3, 12), 0.4, "paper")
        write_model(tensors, config, tmp_path / str(number))
    files = [(tmp_path / str(number) / "model.safetensors").read_bytes() for number in range(2)]
    assert files[0] == files[1]


def test_a_subset_takes_evenly_spaced_layers_and_leading_channels(pair):
    _, large_folder, _, large = pair
    tensors, config, layers = take_subset(large_folder, sizes(3, 2, 8))
    assert layers == [0, 2, 4]
    assert torch.equal(tensors["transformer.h.1.mlp.c_fc.weight"], large["transformer.h.2.mlp.c_fc.weight"][:8, :32])
    keys = large["transformer.h.4.attn.c_attn.weight"][:8, 16:24]  # the first two heads' keys of four
    assert torch.equal(tensors["transformer.h.2.attn.c_attn.weight"][:, 8:16], keys)
    assert config["n_layer"] == 3


def test_sharded_and_bfloat16_sources(pair, tmp_path):
    small_folder, large_folder, small, large = pair
    half = {name: value.bfloat16() for name, value in large.items() if name != "lm_head.weight"}
    names = sorted(half)
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "config.json").write_text((large_folder / "config.json").read_text())
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, chosen in parts.items():
        save_file({name: half[name] for name in chosen}, folder / file)
    index = {"weight_map": {name: file for file, chosen in parts.items() for name in chosen}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    tensors = linit(small_folder, folder, sizes(2, 2, 8), 0.5, "paper")[0]
    name = "transformer.h.1.ln_2.bias"
    assert tensors[name].dtype == torch.bfloat16
    torch.testing.assert_close(tensors[name], (0.5 * small[name] + 0.5 * half[name][:8].float()).bfloat16())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ((6, 4, 16), "large: layer is 5, the target's 6 is more than that"),
        ((4, 5, 20), "large: head is 4, the target's 5 is more than that"),
        ((4, 2, 16), "head_dim is 4, the target's is 8; heads are taken whole"),
    ],
)
def test_what_cannot_be_matched_is_refused_with_axis_and_sizes(pair, target, message):
    with pytest.raises(ColpipeError, match=message):
        linit(*pair[:2], sizes(*target), 0.5, "paper")


def test_a_truncated_weight_file_is_named(pair):
    small_folder, large_folder, *_ = pair
    path = large_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ColpipeError, match=r"large: its weights cannot be read"):
        linit(small_folder, large_folder, sizes(3, 3, 12), 0.5, "paper")
    assert load_file(small_folder / "model.safetensors")
