"""What `architecture.config` may say: known to transformers, decided nowhere else, and of its type."""

import datetime
import json

import pytest
import torch
from transformers import CONFIG_MAPPING
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from colpipe.architectures.families import FAMILIES
from colpipe.architectures.settable import ACTIVATIONS, FIXED, ROPE_TYPES, SETTABLE, require_parameters
from colpipe.config.parts import Architecture, Shape
from colpipe.errors import ColpipeError
from colpipe.hf.models import random_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_keys_and_defaults_are_those_of_the_class_in_transformers(family):
    usual = json.loads(CONFIG_MAPPING[family]().to_json_string(use_diff=False))
    sizes = {*FAMILIES[family].keys.values()} - ({"head_dim"} - {*usual})  # that of qwen2 is no attribute
    assert set(usual) == {*SETTABLE[family], *sizes, *(set(FIXED) & set(usual))}
    assert not set(SETTABLE[family]) & {*FIXED, *sizes}
    for key, value in SETTABLE[family].items():
        assert key in ("layer_types", "no_rope_layers") or usual[key] == value


def test_the_names_of_activations_and_rotary_embeddings_are_those_of_transformers():
    weightless = {
        name for name in ACT2FN if not hasattr(ACT2FN[name], "parameters") or not [*ACT2FN[name].parameters()]
    }
    assert set(ACTIVATIONS) == weightless
    assert set(ROPE_TYPES) == {"default", *ROPE_INIT_FUNCTIONS}


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("gpt2", {"n_layer": 7}, "n_layer: 7: is decided by shape.layers"),
        ("gpt2", {"num_hidden_layers": 7}, "num_hidden_layers: 7: is decided by shape.layers"),
        ("gpt2", {"n_head": 6}, "n_head: 6: is decided by shape.heads"),
        ("gpt2", {"n_embd": 48}, "n_embd: 48: is decided by shape.hidden"),
        ("gpt2", {"vocab_size": 100}, "vocab_size: 100: is decided by architecture.vocabulary"),
        ("llama", {"num_key_value_heads": 1}, "num_key_value_heads: 1: is decided by shape.kv_heads"),
        ("gpt2", {"tie_word_embeddings": False}, "tie_word_embeddings: False: is decided by architecture.tied"),
        ("gpt2", {"model_type": "llama"}, "model_type: 'llama': is decided by architecture.family"),
        ("gpt2", {"eos_token_id": 0}, "eos_token_id: 0: is decided by tokenizer"),
        ("gpt2", {"dtype": "bfloat16"}, "dtype: 'bfloat16': is not a study's to set"),
        ("gpt2", {"scale_atn_weights": False}, "did you mean scale_attn_weights?"),
        ("gpt2", {"rope_parameters": {}}, "rope_parameters: {}: gpt2 has no such key"),
        ("gpt2", {"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon: nan: has to be a finite number"),
        ("gpt2", {"layer_norm_epsilon": "small"}, "layer_norm_epsilon: 'small': has to be a finite number"),
        ("gpt2", {"layer_norm_epsilon": True}, "layer_norm_epsilon: True: has to be a finite number"),
        ("gpt2", {"attn_pdrop": 1.5}, "attn_pdrop: 1.5: has to be a share between 0 and 1"),
        ("gpt2", {"scale_attn_weights": 1}, "scale_attn_weights: 1: has to be true or false"),
        ("gpt2", {"activation_function": "gelu_newest"}, "did you mean gelu_new?"),
        ("gpt2", {"activation_function": "prelu"}, "activation_function: 'prelu': is none of gelu, "),
        ("gpt2", {"initializer_range": datetime.date(2020, 1, 1)}, "has to be a finite number"),
        ("llama", {"rope_theta": 1e6}, "rope_theta: 1000000.0: would not count beside rope_parameters"),
        ("llama", {"rope_parameters": 3}, "rope_parameters: 3: is no mapping"),
        ("llama", {"rope_parameters": {"rope_teta": 1e6}}, "rope_parameters.rope_teta: 1000000.0: rope_parameters has no"),
        ("llama", {"rope_parameters": {"rope_type": "yarm"}}, "did you mean yarn?"),
        ("llama", {"rope_parameters": {"rope_theta": float("inf")}}, "rope_parameters.rope_theta: inf: has to be a finite"),
        ("qwen3", {"layer_types": ["full_atention"]}, "did you mean full_attention?"),
        ("qwen3", {"sliding_window": 0.5}, "sliding_window: 0.5: has to be a whole number"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters.rope_theta: 10000.0: rope_"),
        ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_teta": 1}}}, "full_attention.rope_teta: 1: "),
        ("gemma3_text", {"final_logit_softcapping": "a"}, "final_logit_softcapping: 'a': has to be a finite number"),
        ("granite", {"residual_multiplier": -1}, "residual_multiplier: -1: has to be a finite number"),
    ],
)  # fmt: skip
def test_what_is_decided_elsewhere_unknown_or_of_another_type_is_refused(family, config, message):
    with pytest.raises(ValueError, match="config") as error:
        Architecture(family=family, config=config)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-6, "attn_pdrop": 0}),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8, "low_freq_factor": 1.0,
                                       "high_freq_factor": 4.0, "original_max_position_embeddings": 8}}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "hidden_act": "relu"}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        ("qwen2", {"sliding_window": None, "layer_types": ["full_attention", "full_attention"]}),
    ],
)  # fmt: skip
def test_what_a_family_may_be_told_makes_a_model_of_the_counted_size(family, config):
    architecture, shape = (
        Architecture(family=family, vocabulary=50, positions=16, config=config),
        Shape(layers=2, heads=2, hidden=8),
    )
    model = random_model(architecture.configure(shape, 0), 0)
    require_parameters(model.num_parameters(), architecture.parameters(shape))
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


def test_a_model_of_another_size_than_planned_is_refused():
    with pytest.raises(ColpipeError, match="the model has 14,004 parameters, 4,584 were planned"):
        require_parameters(14004, 4584)
