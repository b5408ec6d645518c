"""Neighbours are mixed only where their weights mean the same."""

import json
import shutil

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from colpipe.errors import ColpipeError
from colpipe.learngene.agreement import require_alike
from colpipe.learngene.linit import METHODS, linit
from colpipe.learngene.weights import Weights

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
YARN = ROPE | {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}
DIFFERENT = [
    ("gpt2", "activation_function", "relu"),
    ("gpt2", "scale_attn_weights", False),
    ("gpt2", "scale_attn_by_inverse_layer_idx", True),
    ("gpt2", "layer_norm_epsilon", 1e-3),
    ("gpt_neox", "use_parallel_residual", False),
    ("gpt_neox", "layer_norm_eps", 1e-3),
    ("gpt_neox", "rope_parameters", ROPE | {"partial_rotary_factor": 1.0}),
    ("llama", "hidden_act", "gelu"),
    ("llama", "rms_norm_eps", 1e-3),
    ("llama", "rope_parameters", ROPE | {"rope_theta": 500.0}),
    ("llama", "rope_parameters", ROPE | {"rope_type": "linear", "factor": 2.0}),
    ("llama", "rope_parameters", YARN | {"factor": 1.0}),
]
SAME = [
    ("gpt2", "activation_function", "gelu_new"),
    ("gpt2", "resid_pdrop", 0.1),
    ("gpt2", "reorder_and_upcast_attn", True),
    ("gpt2", "n_ctx", 99),
    ("gpt2", "predict_special_tokens", True),  # in gpt2-medium, not in gpt2
    ("llama", "hidden_act", "swish"),
    ("llama", "rope_parameters", ROPE | {"partial_rotary_factor": 1.0}),
    ("llama", "rope_parameters", ROPE | {"rope_type": "linear", "factor": 1.0}),
    ("llama", "eos_token_id", [1, 2]),
    ("qwen2", "max_window_layers", 1),
    ("qwen2", "sliding_window", 7),  # no layer attends in one
]


def with_key(neighbours, folder, key: str, value) -> Weights:
    """The larger neighbour, its configuration changed."""
    shutil.copytree(neighbours.large_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    return Weights(folder)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("family", "key", "value"), DIFFERENT, ids=str)
def test_what_changes_the_arithmetic_must_agree(neighbours_of, tmp_path, method, family, key, value):
    neighbours = neighbours_of(family, False)
    small, large = neighbours.weights[0], with_key(neighbours, tmp_path / "other", key, value)
    if method == "lossless" and "eps" in key:  # which it makes up for
        assert linit(small, large, neighbours.sizes(), 0.5, method).config[key] < value
        return
    with pytest.raises(ColpipeError, match=rf"^{key} is .* in .*small, .* in .*other: neighbours must agree$"):
        linit(small, large, neighbours.sizes(), 0.5, method)


@pytest.mark.parametrize(("family", "key", "value"), SAME, ids=str)
def test_what_does_not_may_differ(neighbours_of, tmp_path, family, key, value):
    neighbours = neighbours_of(family, False)
    large = with_key(neighbours, tmp_path / "other", key, value)
    assert linit(neighbours.weights[0], large, neighbours.sizes(), 0.5).parameters


@pytest.mark.parametrize(("said", "agree"), [(32.0, True), (16.0, False)])
def test_what_yarn_takes_for_what_is_left_out_may_be_written_out(neighbours_of, tmp_path, said, agree):
    neighbours = neighbours_of("llama", False)
    one = with_key(neighbours, tmp_path / "one", "rope_parameters", YARN)
    other = with_key(neighbours, tmp_path / "other", "rope_parameters", YARN | {"beta_fast": said, "beta_slow": 1.0})
    if agree:
        require_alike(one, other)
        return
    with pytest.raises(ColpipeError, match=r"rope_parameters is .* in .*one, .* in .*other: neighbours must agree"):
        require_alike(one, other)


def qwen(kinds: str) -> Weights:
    """A model whose layers attend everywhere (f) or in a window (s)."""
    names = {"f": "full_attention", "s": "sliding_attention"}
    torch.manual_seed(len(kinds))
    width = 8 * len(kinds)
    config = Qwen2Config(
        vocab_size=50, hidden_size=width, num_hidden_layers=len(kinds), num_attention_heads=width // 8,
        num_key_value_heads=width // 8, intermediate_size=16, max_position_embeddings=16, use_sliding_window=True,
        sliding_window=4, layer_types=[names[kind] for kind in kinds], head_dim=8,
    )  # fmt: skip
    return Weights(Qwen2ForCausalLM(config))


def test_layers_that_are_mixed_are_of_one_kind():
    small, large = qwen("fs"), qwen("fsfs")
    target = {**large.sizes, "layer": 3, "hidden": 24, "head": 3, "group": 3}
    message = (
        "layer_types is sliding_attention for layer 1 of .*, full_attention for layer 2 of .*: neighbours must agree"
    )
    with pytest.raises(ColpipeError, match=message):
        linit(small, large, target, 0.5, "nested", layer_map=[0, 2])
    made = linit(small, large, target, 0.5, "nested", layer_map=[0, 3], ranking=[2, 0, 1, 3])
    assert made.config["layer_types"] == ["full_attention", "full_attention", "sliding_attention"]
