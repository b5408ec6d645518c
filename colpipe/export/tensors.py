"""A model's tensors as llama.cpp names and lays them out."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import gguf
import torch
from einops import rearrange
from gguf import MODEL_ARCH
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from colpipe.architectures.family import Family
from colpipe.errors import ColpipeError
from colpipe.export.settings import query_factor

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "smollm3": MODEL_ARCH.SMOLLM3,
    "granite": MODEL_ARCH.GRANITE,
    "olmo2": MODEL_ARCH.OLMO2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "phi3": MODEL_ARCH.PHI3,
    "gpt2": MODEL_ARCH.GPT2,
    "gpt_neox": MODEL_ARCH.GPTNEOX,
}
HEADED = (MODEL_ARCH.GPTNEOX, MODEL_ARCH.OLMO2)  # whose head llama.cpp asks for, also where it is the embedding
NEIGHBOURS = (
    "llama",
    "mistral",
    "smollm3",
    "granite",
)  # rotary pairs are neighbours in llama.cpp, half a head apart here


def tensors(model: PreTrainedModel, family: Family) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in a GGUF file, tensor) of everything that llama.cpp loads; a tied head is the embedding, where it can be.

    Raises:
        ColpipeError: the model has a tensor that llama.cpp has no place for.
    """
    config, sizes = model.config.to_dict(), family.sizes(model.config.to_dict())
    arch = ARCHITECTURES[family.name]
    names = gguf.get_tensor_name_map(arch, sizes["layer"])
    tied = family.is_tied(config) and arch not in HEADED
    for name, tensor in model.state_dict().items():
        if re.search(family.buffers, name):
            continue
        found = names.get_name(name, (".weight", ".bias"))
        if found is None or (arch == MODEL_ARCH.QWEN3 and name.endswith("o_proj.bias")):
            raise ColpipeError(f"{model.name_or_path}: tensor {name}: llama.cpp has no place for it in {family.name}")
        if not (tied and found == "output.weight"):
            table = family.tensors.get(re.sub(r"\.\d+\.", ".{layer}.", name))
            offset = table.offset if table else 0.0  # llama.cpp has gains as they are
            yield found, _arranged(family, found, tensor.detach() + offset if offset else tensor.detach(), config)
    if arch == MODEL_ARCH.GPTNEOX and not family.get(config, "attention_bias"):  # llama.cpp adds them always
        for layer in range(sizes["layer"]):
            yield f"blk.{layer}.attn_qkv.bias", torch.zeros(3 * sizes["hidden"])
            yield f"blk.{layer}.attn_output.bias", torch.zeros(sizes["hidden"])
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "llama3":
        yield "rope_freqs.weight", frequency_factors(model)
    if rope.get("rope_type") == "longrope":
        for length in ("long", "short"):
            yield f"rope_factors_{length}.weight", torch.tensor(rope[f"{length}_factor"], dtype=torch.float32)


def _arranged(family: Family, name: str, tensor: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
    """A tensor in llama.cpp's layout: rows are outputs, as in torch's linear layers."""
    sizes = family.sizes(config)
    if family.name == "gpt2" and re.search(r"(attn_qkv|attn_output|ffn_up|ffn_down)\.weight$", name):
        return tensor.T
    if family.name == "gpt_neox" and ".attn_qkv." in name:
        return rearrange(tensor, "(head qkv dim) ... -> (qkv head dim) ...", head=sizes["head"], qkv=3)
    if family.name == "gemma3_text" and name.endswith(".attn_q_norm.weight"):
        return tensor * query_factor(family, config)
    if family.name in NEIGHBOURS and (found := re.search(r"\.attn_([qk])\.", name)):
        heads = sizes["group"] * (sizes["query"] if found[1] == "q" else 1)
        return rearrange(tensor, "(head pair dim) ... -> (head dim pair) ...", head=heads, pair=2)
    return tensor


def frequency_factors(model: PreTrainedModel) -> torch.Tensor:
    """What llama.cpp divides rotary frequencies by, (head_dim / 2,): how Llama 3 stretches them.

    Raises:
        ColpipeError: it scales the scores as well, which llama.cpp does not do beside such factors.
    """
    scaled, attention = ROPE_INIT_FUNCTIONS["llama3"](model.config, torch.device("cpu"))
    if attention != 1:
        raise ColpipeError(
            f"{model.name_or_path}: rope_parameters: an attention factor of {attention}; llama.cpp has none"
        )
    steps = torch.arange(0, 2 * len(scaled), 2, dtype=torch.float32) / (2 * len(scaled))
    return 1.0 / model.config.rope_parameters["rope_theta"] ** steps / scaled
