"""Tiny random stock models of the types whose logits are made of hidden states here, straight from their config classes."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SIZES = {
    "vocab_size": 23,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GATED = {"intermediate_size": 24, "num_key_value_heads": 2, "tie_word_embeddings": False}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = {**GATED, "head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 4, "layer_types": KINDS}
# Every number that Granite multiplies or divides by is set, and no divisor is a power of 2 alone.
MUP = {"embedding_multiplier": 3.0, "residual_multiplier": 0.7, "attention_multiplier": 0.3}
MODELS = {
    "gpt2": {},
    "gpt_neox": {"intermediate_size": 24, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "llama": GATED,
    "qwen2": GATED,
    "qwen3": {**GATED, "head_dim": 4},
    "mistral": {**GATED, "sliding_window": 4},
    "olmo2": GATED,
    "phi3": {**GATED, "original_max_position_embeddings": 32},
    "smollm3": GATED,
    "granite": {**GATED, **MUP, "logits_scaling": 4.0},
    "granite by 6": {**GATED, **MUP, "logits_scaling": 6.0},
    "gemma2": {**GEMMA, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**GEMMA, "final_logit_softcapping": 5.0},
    "gemma3_text tied": {**GEMMA, "final_logit_softcapping": 5.0, "tie_word_embeddings": True},
    "gemma3_text without": GEMMA,
}
CHANGED = [name for name in MODELS if name.startswith(("granite", "gemma")) and not name.endswith("without")]


def stock_model(name: str, seed: int = 0, **more) -> PreTrainedModel:
    """One of `MODELS`, so random that its logits are far from 0: divisors and caps make a difference."""
    kind = name.partition(" ")[0]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **MODELS[name], **more}))
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            gain = ("norm" in path or "ln_" in path) and path.endswith("weight") and not kind.startswith("gemma")
            parameter.copy_(torch.randn_like(parameter) * 0.3 + gain)
        model.get_output_embeddings().weight.mul_(6)
    return model.eval()
