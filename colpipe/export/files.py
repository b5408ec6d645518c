"""A transformers folder as GGUF files, for llama.cpp and Ollama."""

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_VERSION, MODEL_ARCH_NAMES, GGUFWriter, LlamaFileType
from gguf import GGMLQuantizationType as Kind
from gguf.quants import quant_shape_to_byte_shape, quantize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.architectures.families import family_of
from colpipe.architectures.widths import BLOCK
from colpipe.config.folders import read_mapping
from colpipe.errors import ColpipeError
from colpipe.export.ollama import modelfile
from colpipe.export.settings import add_settings, require_exported, require_known
from colpipe.export.tensors import ARCHITECTURES, tensors
from colpipe.export.vocabulary import END_KEYS, add_vocabulary, vocabulary
from colpipe.hashing import sha256
from colpipe.hf.generation_config import end_ids
from colpipe.hf.models import load_model
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.artifacts import require_space

TYPES = {"f16": Kind.F16, "q8_0": Kind.Q8_0, "q4_0": Kind.Q4_0}


@dataclass(frozen=True)
class Exported:
    """A GGUF file that was written.

    Attributes:
        path, modelfile: of the file, and of the Modelfile beside it.
        type: `f16`, `q8_0` or `q4_0`.
        bytes: of the file.
        vocabulary, positions: of the model.
        not_quantised: tensors that stay in F16 because their width is no multiple of 32.
        notes: what is different in llama.cpp, or was added, a phrase each.
    """

    path: Path
    modelfile: Path
    type: str
    bytes: int
    vocabulary: int
    positions: int
    not_quantised: int
    notes: list[str]


def write_gguf(folder: Path, out: Path, quantisation: str) -> Exported:
    """Write a model's folder as one GGUF file, `out`, and an Ollama Modelfile beside it.

    Args:
        folder: a transformers folder of a family that colpipe has, with its tokenizer.
        quantisation: `f16`, `q8_0` or `q4_0`, of the matrices; norms, biases and positions stay in F32.

    Raises:
        ColpipeError: as in `write_gguf_files`.
    """
    return write_gguf_files(folder, {quantisation: out})[0]


def write_gguf_files(folder: Path, paths: dict[str, Path], template: str | None = None) -> list[Exported]:
    """The same for several types, of which the model is loaded once.

    Args:
        paths: type → file to write.
        template: chat template, instead of the tokenizer's own; empty for none.

    Raises:
        ColpipeError: the family, a setting or the tokenizer is none that llama.cpp takes, a weight is too large for F16, or
            there is a file of another content where one is to be written.
    """
    require_types(paths)
    if config := read_mapping(Path(folder) / "config.json"):  # before transformers says less of it
        require_exported(config.get("model_type"), f"{folder}/config.json")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    return [_write(model, tokenizer, Path(path), type, template, str(folder)) for type, path in paths.items()]


def require_types(types: Iterable[str]) -> None:
    """Refuse types that are not written here.

    Raises:
        ColpipeError: names the first of them and what there is.
    """
    if unknown := [type for type in types if type not in TYPES]:
        raise ColpipeError(f"type {unknown[0]!r}: written are {', '.join(TYPES)}")


def _write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, type: str, template: str | None, where: str
) -> Exported:
    config = model.config.to_dict()
    family = family_of(config, f"{where}/config.json")
    notes = require_known(family, config, f"{where}/config.json")
    words = vocabulary(tokenizer, model.get_input_embeddings().weight.shape[0], where)
    notes += words.notes
    if template is None and tokenizer.chat_template:
        template = tokenizer.get_chat_template()
    if len(ends := end_ids(model, tokenizer)) > len(END_KEYS):
        notes.append(f"{len(ends)} tokens end a text, and a GGUF file lists {len(END_KEYS)} of them")
    found = dict(tensors(model, family))
    head = "output.weight" if "output.weight" in found else "token_embd.weight"
    kinds = {name: kind_of(name, tensor, TYPES[type], name == head) for name, tensor in found.items()}
    narrow = [name for name, kind in kinds.items() if kind == Kind.F16 != TYPES[type]]
    if narrow:
        notes.append(f"{len(narrow)} tensors stay in F16: their width is no multiple of {BLOCK} ({narrow[0]})")

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(None, MODEL_ARCH_NAMES[ARCHITECTURES[family.name]])
    writer.add_name(_harmless(path.stem.removesuffix(f"-{type}")))
    writer.add_file_type(LlamaFileType[f"MOSTLY_{type.upper()}"])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_settings(writer, family, config)
    add_vocabulary(writer, words, tokenizer, ends, template)
    _put(path, lambda partial: _write_tensors(writer, partial, found, kinds, where))
    sizes = family.sizes(config)
    text = modelfile(path.name, tokenizer, template, ends, sizes["position"])
    about = path.with_suffix(".Modelfile")
    _put(about, lambda partial: partial.write_text(text))
    size = path.stat().st_size
    return Exported(path, about, type, size, sizes["vocabulary"], sizes["position"], len(narrow), notes)


def _harmless(name: str) -> str:
    """A model's name in which llama.cpp sees no phi3 or phi-3: it would look for Phi-3's tokens, and fail without them, or
    drop the spaces behind special tokens."""
    return re.sub(r"(?i)(phi)-?(?=3)", r"\1 ", name)


def kind_of(name: str, tensor: torch.Tensor, asked: Kind, head: bool) -> Kind:
    """What a tensor is stored as. Norms, biases, positions and frequencies are small, and stay in F32; in Q4_0 the head,
    where errors go straight into the probabilities, is in Q8_0."""
    if tensor.dim() == 1 or name == "position_embd.weight":
        return Kind.F32
    if tensor.shape[-1] % BLOCK:
        return Kind.F16
    return Kind.Q8_0 if head and asked == Kind.Q4_0 else asked


def _write_tensors(
    writer: GGUFWriter, path: Path, found: dict[str, torch.Tensor], kinds: dict[str, Kind], where: str
) -> None:
    """One tensor after the other, so that a quantised copy of one alone is in memory."""
    sizes = {
        name: math.prod(quant_shape_to_byte_shape(tuple(tensor.shape), kinds[name])) for name, tensor in found.items()
    }
    require_space(path.parent, sum(sizes.values()), "a GGUF file")
    for name, tensor in found.items():
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), sizes[name], raw_dtype=kinds[name])
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in found.items():
        writer.write_tensor_data(_packed(tensor.contiguous().numpy(), kinds[name], f"{where}: tensor {name}"))
    writer.close()


def _packed(values: np.ndarray, kind: Kind, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        packed = quantize(values, kind)
    if kind == Kind.F16 and not np.isfinite(packed).all():
        raise ColpipeError(f"{what} holds {abs(values).max():g}: beyond F16, whose largest number is 65504")
    return packed


def _put(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file, whole or not at all, and never over one of another content.

    Raises:
        ColpipeError: there is one.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        if not path.exists():
            os.replace(partial, path)
        elif sha256(partial) != sha256(path):
            raise ColpipeError(f"{path}: there is a file of another content; move it away, or give another place")
    finally:
        partial.unlink(missing_ok=True)
