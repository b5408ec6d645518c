"""Loading, creating and saving stock transformers models."""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from colpipe.errors import ColpipeError, first_line
from colpipe.hf.counting import count_calls
from colpipe.hf.finite import broken_weights
from colpipe.hf.generation_config import generation_config_of, keep_end_ids, mended
from colpipe.jobs.artifacts import require_space
from colpipe.jobs.device import require_precision

logging.disable_progress_bar()


# No code is run that comes with a model, whether as Python files or inside pickled weights.
ONLY_DATA = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model from a folder, weights in freshly allocated memory.

    Fresh memory, because weights left on a file's memory map can have another alignment than those restored from an
    in-step state, and aligned and unaligned matrix products may differ in the last bit.

    Generation settings that transformers would refuse to save are mended now, so that what is trained can be saved.

    Raises:
        ColpipeError: the folder is not a model, a weight file is cut short, or a weight is not finite.
    """
    generation = generation_config_of(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, generation_config=generation, **ONLY_DATA)
    except Exception as error:
        raise ColpipeError(
            f"{folder}: cannot be loaded as a causal language model: {first_line(error)}{_broken_weights(folder)}"
        ) from None
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    if found := broken_weights(model):
        raise ColpipeError(f"{folder}: its {found}: such a model can be neither trained nor scored")
    if generation is None:  # transformers looked into config.json for one
        model.generation_config = mended(model.generation_config.to_diff_dict(), f"{folder}/config.json")
    return count_calls(model)


def load_frozen(folder: Path, precision: str, device: torch.device) -> PreTrainedModel:
    """A model that is only read, such as a teacher: its weights in the precision of the study, on a device.

    Raises:
        ColpipeError: as in `load_model`, or the device lacks the precision.
    """
    require_precision(device, precision)
    return load_model(folder, getattr(torch, precision)).to(device).eval().requires_grad_(False)


def _broken_weights(folder: Path) -> str:
    """Names the weight files that are cut short or foreign, for an error message."""
    from safetensors import SafetensorError, safe_open

    broken = []
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            broken.append(f"{path.name} ({first_line(error)})")
    return f"; broken: {', '.join(broken)}; delete {folder}/manifest.json to have it made again" if broken else ""


def random_model(config: Mapping, seed: int) -> PreTrainedModel:
    """A transformers model with its random initialisation, from a `config.json` mapping."""
    torch.manual_seed(seed)
    settings = {key: value for key, value in config.items() if key not in ("model_type", "transformers_version")}
    return count_calls(AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **settings)))


def require_positions(model: PreTrainedModel, length: int, what: str) -> None:
    """See that a model can read so many tokens; rotary positions would give wrong numbers without a word.

    Raises:
        ColpipeError: it cannot.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and length > positions:
        raise ColpipeError(f"{what} has {length} tokens, but the model has {positions} positions; lower the length")


def disable_dropout(model: PreTrainedModel) -> None:
    """Train without dropout, as MiniLLM does: a teacher's distribution is the better regulariser."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A stock Hugging Face folder: weights, configuration, generation settings, tokenizer. Every id that ended an answer
    still does.

    Raises:
        ColpipeError: the disk has no room for it.
    """
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    require_space(folder, needed, "a model")
    keep_end_ids(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
