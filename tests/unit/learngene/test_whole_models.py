"""What is made of a whole model computes what transformers does from the same folder, whatever the configuration says."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from colpipe.errors import ColpipeError
from colpipe.learngene.importance import Importance, reorder
from colpipe.learngene.initialisers import hypercloning, single
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.weights import Weights
from tests.unit.learngene.tiny import distance

GPT2 = {"vocab_size": 50, "n_embd": 12, "n_layer": 3, "n_head": 3, "n_positions": 16}
NEOX = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 20}
LLAMA = {**NEOX, "num_attention_heads": 6, "num_key_value_heads": 3}
WINDOW = {"use_sliding_window": True, "sliding_window": 3}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}
LINEAR = {"type": "linear", "factor": 2.0}
KINDS = ["full_attention", "sliding_attention", "full_attention"]
LONG = {"rope_type": "longrope", "rope_theta": 100.0, "original_max_position_embeddings": 8}
SPREAD = {"rope_type": "default", "rope_theta": 1e6}
# What published checkpoints say, scaled down: three or more of each family that was added after the first five.
GEMMA = {**LLAMA, "head_dim": 6, "sliding_window": 3, "query_pre_attn_scalar": 6}
GRANITE = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.3,
    "logits_scaling": 8.0,
}
ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
}
PARTLY = {**LONG, "partial_rotary_factor": 0.5, "short_factor": [1.0], "long_factor": [4.0]}
NEWER = {
    "mistral-v0.1": ("mistral", LLAMA, {"sliding_window": 3}),
    "mistral-v0.3": ("mistral", LLAMA, {"sliding_window": None, "rope_parameters": SPREAD}),
    "mistral-nemo": ("mistral", {**LLAMA, "head_dim": 6}, {"sliding_window": None}),
    "smollm3": ("smollm3", LLAMA, {"no_rope_layers": [1, 0, 1]}),
    "smollm3-interval": ("smollm3", LLAMA, {"no_rope_layer_interval": 2, "no_rope_layers": None, "layer_types": None}),
    "smollm3-window": ("smollm3", LLAMA, {**WINDOW, "no_rope_layers": [0, 1, 0], "attention_bias": True, "mlp_bias": True}),
    "smollm3-untied": ("smollm3", LLAMA, {"tie_word_embeddings": False, "rope_parameters": {"rope_theta": 100.0, **YARN}}),
    "granite-2b": ("granite", LLAMA, {**GRANITE, "tie_word_embeddings": True}),
    "granite-8b": ("granite", LLAMA, GRANITE),
    "granite-code": ("granite", LLAMA, {"attention_bias": True, "mlp_bias": True}),
    "olmo2-1b": ("olmo2", {**LLAMA, "num_key_value_heads": 6}, {}),
    "olmo2-32b": ("olmo2", LLAMA, {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
    "olmo2-bias": ("olmo2", LLAMA, {"attention_bias": True, "tie_word_embeddings": True}),
    "gemma3-270m": ("gemma3_text", {**GEMMA, "num_key_value_heads": 1}, {"layer_types": KINDS}),
    "gemma3-1b": ("gemma3_text", GEMMA, {"layer_types": KINDS, "rope_parameters": ROPES}),
    "gemma3-older": ("gemma3_text", GEMMA, {"rope_parameters": None, "layer_types": None, "sliding_window_pattern": 2}),
    "gemma3-capped": ("gemma3_text", GEMMA, {"final_logit_softcapping": 3.0, "tie_word_embeddings": False}),
    "gemma3-bias": ("gemma3_text", GEMMA, {"attention_bias": True}),
    "phi3-mini": ("phi3", {**LLAMA, "num_key_value_heads": 6}, {"sliding_window": 3}),
    "phi3-medium": ("phi3", LLAMA, {"rope_parameters": {**LONG, "short_factor": [1.0, 1.1], "long_factor": [4.0, 5.0]}}),
    "phi4-mini": ("phi3", LLAMA, {"tie_word_embeddings": True, "max_position_embeddings": 16, "rope_parameters": PARTLY}),
}  # fmt: skip

# (family, sizes, what else config.json says; None: the key is not there)
VARIANTS = {
    "gpt2": ("gpt2", GPT2, {}),
    "gpt2-relu": ("gpt2", GPT2, {"activation_function": "relu", "n_inner": 20, "layer_norm_epsilon": 1e-2}),
    "gpt2-unscaled": ("gpt2", GPT2, {"scale_attn_weights": False}),
    "gpt2-inverse": ("gpt2", GPT2, {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "gpt2-untied": ("gpt2", GPT2, {"tie_word_embeddings": False}),
    "gpt2-defaults": ("gpt2", {**GPT2, "n_head": 12}, {"n_head": None, "tie_word_embeddings": None}),
    "neox": ("gpt_neox", NEOX, {}),
    "neox-no-bias": ("gpt_neox", NEOX, {"attention_bias": False, "hidden_act": "gelu_new"}),
    "neox-serial": ("gpt_neox", NEOX, {"use_parallel_residual": False, "tie_word_embeddings": True}),
    "neox-older": ("gpt_neox", NEOX, {"rope_parameters": None, "rotary_pct": 0.5, "rotary_emb_base": 500}),
    "neox-defaults": ("gpt_neox", NEOX, {"layer_norm_eps": None, "use_parallel_residual": None, "attention_bias": None}),
    "llama": ("llama", LLAMA, {}),
    "llama-biases": ("llama", LLAMA, {"attention_bias": True, "mlp_bias": True}),
    "llama-mlp-bias": ("llama", LLAMA, {"mlp_bias": True, "tie_word_embeddings": True}),
    "llama-older": ("llama", LLAMA, {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": LINEAR}),
    "llama-yarn": ("llama", LLAMA, {"rope_parameters": {"rope_theta": 500.0, **YARN}}),
    "llama-one-kv": ("llama", {**LLAMA, "num_key_value_heads": 1}, {"hidden_act": "gelu"}),
    "llama-all-kv": ("llama", {**LLAMA, "num_key_value_heads": 6}, {"num_key_value_heads": None, "head_dim": None}),
    "llama-head-dim": ("llama", {**LLAMA, "head_dim": 6}, {"rms_norm_eps": 1e-2, "max_position_embeddings": None}),
    "qwen2": ("qwen2", LLAMA, {"tie_word_embeddings": True}),
    "qwen2-kinds": ("qwen2", LLAMA, {**WINDOW, "layer_types": KINDS}),
    "qwen2-window": ("qwen2", LLAMA, {**WINDOW, "max_window_layers": 1, "layer_types": None}),
    "qwen3": ("qwen3", {**LLAMA, "head_dim": 6}, {"tie_word_embeddings": True}),
    "qwen3-bias": ("qwen3", {**LLAMA, "head_dim": 6}, {"attention_bias": True, **WINDOW, "layer_types": KINDS}),
    "qwen3-defaults": ("qwen3", {**LLAMA, "head_dim": 128, "hidden_size": 12}, {"head_dim": None, "sliding_window": None}),
    **NEWER,
    # norms inside the attention with an epsilon that counts
    "qwen3-epsilon": ("qwen3", {**LLAMA, "head_dim": 6}, {"attention_bias": True, "rms_norm_eps": 0.05}),
    "gemma3-epsilon": ("gemma3_text", GEMMA, {"layer_types": KINDS, "rms_norm_eps": 0.05}),
    "olmo2-epsilon": ("olmo2", LLAMA, {"attention_bias": True, "rms_norm_eps": 0.05}),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(VARIANTS))
def whole(request, tmp_path_factory):
    """(what transformers loads from a folder, the folder); every tensor random, biases and gains too."""
    folder = tmp_path_factory.mktemp("whole")
    family, sizes, more = VARIANTS[request.param]
    torch.manual_seed(7)
    said = {key: value for key, value in more.items() if value is not None}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **said, pad_token_id=0))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            gain = (
                name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")) and family != "gemma3_text"
            )
            parameter.copy_(torch.randn_like(parameter) * 0.3 + gain)
    made.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    if "rope_scaling" in more or "rotary_pct" in more:  # older files do not have the newer keys beside
        written |= said
    dropped = {key for key, value in more.items() if value is None}
    kept = {key: value for key, value in written.items() if key not in dropped}
    (folder / "config.json").write_text(json.dumps(kept))
    return AutoModelForCausalLM.from_pretrained(folder).eval(), folder


def test_weights_have_the_sizes_of_what_transformers_loads(whole):
    model, folder = whole
    for weights in (Weights(folder), Weights(model)):
        assert weights.family.parameters(weights.sizes, weights.tied) == model.num_parameters()
        assert weights.family.sizes(json.loads((folder / "config.json").read_text())) == weights.sizes


def test_a_subset_of_everything_is_the_model(whole):
    model, folder = whole
    for weights in (Weights(folder), Weights(model)):
        assert distance(take_subset(weights, weights.sizes).load(), model) < 1e-5


@pytest.mark.parametrize("method", ["paper", "nested", "aligned"])
def test_a_mixture_of_a_model_with_itself_is_the_model(whole, method):
    model, folder = whole
    weights = Weights(folder)
    assert distance(linit(weights, weights, weights.sizes, 0.3, method).load(), model) < 1e-4


def test_what_is_written_is_read_the_same(whole, tmp_path):
    model, folder = whole
    weights = Weights(folder)
    take_subset(weights, weights.sizes).write(tmp_path)
    assert distance(AutoModelForCausalLM.from_pretrained(tmp_path).eval(), model) < 1e-5


def widened(weights: Weights, **times: int) -> dict[str, int]:
    """Sizes with some axes so many times as wide; of a family whose width is that of its heads, both."""
    sizes = {axis: size * times.get(axis, 1) for axis, size in weights.sizes.items()}
    return {**sizes, "head": sizes["group"] * sizes["query"]}


def test_hypercloning_is_the_model(whole):
    model, folder = whole
    weights = Weights(folder)
    axis = {"group": 2} if "group" in weights.family.keys else {"group": 2, "head": 2}
    wider = [widened(weights, hidden=2, ffn=2, **axis), {**widened(weights, hidden=2, **axis), "layer": 4}]
    if "group" in weights.family.keys:
        wider.append(widened(weights, hidden=2, query=2))
        wider.append(widened(weights, hidden=4, query=2, group=2, ffn=3))
    for sizes in wider:
        assert distance(hypercloning(weights, sizes).load(), model) < 1e-4


def test_lossless_is_the_model(whole):
    model, folder = whole
    weights = Weights(folder)
    axis = {"group": 2} if "group" in weights.family.keys else {"group": 2, "head": 2}
    target = {**widened(weights, hidden=2, **axis), "layer": 5, "ffn": weights.sizes["ffn"] + 5}
    if weights.family.norms_all_heads:
        with pytest.raises(
            ColpipeError,
            match=rf"head is 6, the target's 12; {weights.family.name} normalises queries and keys over all",
        ):
            single(weights, target, "lossless")
        axis = {}
        target |= {each: weights.sizes[each] for each in ("head", "group")}
    larger = Weights(hypercloning(weights, {**widened(weights, hidden=2, ffn=2, **axis), "layer": 6}).load())
    assert distance(linit(weights, larger, target, 1.0, "lossless", layer_map=[0, 1, 2]).load(), model) < 1e-4
    assert distance(single(weights, target, "lossless").load(), model) < 1e-4


def test_an_order_of_importance_is_the_model(whole):
    model, folder = whole
    weights = Weights(folder)
    sizes, generator = weights.sizes, torch.Generator().manual_seed(3)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    axis = "group" if "group" in weights.family.widths else "head"
    root = some(sizes["hidden"], sizes["hidden"])
    measured = Importance(root @ root.T, some(3, sizes[axis]), some(3, sizes["ffn"]), some(3))
    assert distance(reorder(weights, measured, "rank").load(), model) < 1e-4
    if reason := weights.family.rotation_problem:
        with pytest.raises(ColpipeError, match=f"select 'rotate': {reason}: use 'rank'"):
            reorder(weights, measured, "rotate")
    else:
        assert distance(reorder(weights, measured, "rotate").load(), model) < 1e-4


def test_layers_that_move_keep_what_they_are(whole):
    """The last two layers of three: the model with its first layer taken out of the residual stream."""
    model, folder = whole
    weights = Weights(folder)
    last = take_subset(weights, {**weights.sizes, "layer": 2}, layers=[1, 2]).load()
    tensors = dict(take_subset(weights, weights.sizes).tensors())
    for name, tensor in weights.family.tensors.items():
        if tensor.role == "write" and "{layer}" in name:
            tensors[name.format(layer=0)].zero_()
    settings = {
        key: value for key, value in weights.config.items() if key not in ("model_type", "transformers_version")
    }
    config = AutoConfig.for_model(weights.family.name, **settings | {"tie_word_embeddings": weights.tied})
    expected = type(model).from_pretrained(None, config=config, state_dict=tensors).eval()
    assert distance(last, expected) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_head_that_is_not_the_embedding_is_used_though_the_configuration_ties_it(
    neighbours_of, family, tmp_path, caplog
):
    neighbours = neighbours_of(family, True)
    neighbours.small.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    embedding = next(value for name, value in tensors.items() if "wte" in name or "embed_tokens" in name)
    for head, tied in ((embedding.clone(), True), (torch.randn_like(embedding), False)):
        save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors", {"format": "pt"})
        model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        for weights in (Weights(tmp_path), Weights(model)):
            assert weights.tied == tied
            assert ("lm_head.weight is stored with other values" in caplog.text) == (not tied)
            assembly = take_subset(weights, weights.sizes)
            assert assembly.config["tie_word_embeddings"] == tied
            assert distance(assembly.load(), model) < 1e-5
