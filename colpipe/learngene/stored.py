"""What a model folder holds, as transformers reads it: its configuration, and the tensors of its safetensors files."""

import json
import math
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from colpipe.errors import ColpipeError, first_line

DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
}  # as safetensors names them


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file: read when it is asked for.

    Attributes:
        kind: its dtype as safetensors names it.
        start: offset of its first byte in the file.
    """

    path: Path
    kind: str
    shape: Sequence[int]
    start: int

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype.

        Raises:
            StopIteration: it is none of `DTYPES`.
        """
        return next(dtype for dtype, name in DTYPES.items() if name == self.kind)

    def rows(self, first: int, count: int) -> "StoredTensor":
        """Some of its rows, which lie one after the other."""
        width = math.prod(self.shape[1:])
        return replace(self, shape=[count, *self.shape[1:]], start=self.start + first * width * self.dtype.itemsize)

    def map(self) -> torch.Tensor:
        """The tensor, mapped by itself: its pages leave memory with it.

        `safe_open` would read the whole header and map the whole file again for each tensor.

        Raises:
            OSError, ValueError: the file is gone, or shorter than it was.
        """
        count = math.prod(self.shape)
        if not count:
            return torch.empty(tuple(self.shape), dtype=self.dtype)
        skipped = self.start % mmap.ALLOCATIONGRANULARITY
        with open(self.path, "rb") as file:
            pages = mmap.mmap(
                file.fileno(),
                skipped + count * self.dtype.itemsize,
                access=mmap.ACCESS_COPY,
                offset=self.start - skipped,
            )
        return torch.frombuffer(pages, dtype=self.dtype, count=count, offset=skipped).view(tuple(self.shape))


def is_finite(value: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinities; reads it once and makes no copy."""
    if not value.numel() or not value.is_floating_point():
        return True
    low, high = value.aminmax()  # both are NaN where one value is
    return math.isfinite(low) and math.isfinite(high)


def require_finite(tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse stored weights that hold NaN or infinities.

    Raises:
        ColpipeError: names the file and the tensor.
    """
    for name, tensor in tensors.items():
        if tensor.kind in DTYPES.values() and not is_finite(tensor.map()):
            raise ColpipeError(f"{tensor.path}: tensor {name} holds NaN or infinite values: the model is damaged")


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Stored tensor name → where it is, of all files of a model.

    `model.safetensors` is read where there is one, an index and shards beside it are not, as transformers has it.

    Raises:
        ColpipeError: no weights, an index that cannot be read or names a file that is not there, two shards that hold a
            tensor with different values.
    """
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if not (folder / files[0]).exists() and index.exists():
        try:
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if strange := [file for file in files if not isinstance(file, str)]:
                raise ValueError(f"weight_map names {strange[0]!r}, which is no file's name")
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ColpipeError(f"{index}: cannot be read: {first_line(error)}") from None
        for file in files:
            if not (folder / file).exists():
                raise ColpipeError(
                    f"{folder / file}: weights cannot be read: {index.name} names the file, and it is not there"
                )
    found: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in read_header(folder / file).items():
            if name in found and not _equal(found[name], tensor):
                raise ColpipeError(
                    f"{tensor.path}: tensor {name} is in {found[name].path.name} too, with other values: "
                    "save the model again"
                )
            found.setdefault(name, tensor)
    return found


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    same = (one.kind, list(one.shape)) == (other.kind, list(other.shape))
    return same and (one.kind not in DTYPES.values() or torch.equal(one.map(), other.map()))


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Stored tensor name → where it is in a safetensors file, which is checked first.

    Raises:
        ColpipeError: there is none, it is cut short, or it is no safetensors file.
    """
    try:
        with safe_open(path, "pt"):
            pass
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
    except (OSError, ValueError, SafetensorError) as error:
        raise ColpipeError(f"{path}: weights cannot be read: {error}") from None
    return {
        name: StoredTensor(path, entry["dtype"], entry["shape"], 8 + size + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def read_config(folder: Path) -> dict:
    """A model folder's `config.json`, as it is written there.

    Raises:
        ColpipeError: there is none, or it is not a JSON mapping.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ColpipeError(f"{path}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ColpipeError(f"{path}: cannot be read: holds a {type(config).__name__}, not a mapping")
    return config


def complete_config(config: Mapping, where: str) -> dict:
    """A `config.json` mapping with everything that transformers takes for what it leaves out or writes in an older way.

    Args:
        where: names the file in the error.

    Raises:
        ColpipeError: the weights are quantised, or transformers has no such model.
    """
    from transformers import CONFIG_MAPPING  # seconds, spared those who only look at a file
    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else quantised
        raise ColpipeError(
            f"{where}: quantization_config: the weights are quantised ({method}); "
            "give the model in float32, bfloat16 or float16"
        )
    try:
        complete = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    except Exception as error:
        raise ColpipeError(f"{where}: transformers has no such model: {' '.join(str(error).split())}") from None
    found = json.loads(complete.to_json_string(use_diff=False))
    rope = found.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise ColpipeError(f"{where}: rope_parameters {rope!r} is no mapping")
    for key, value, known in (
        *((key, found.get(key, "gelu"), ACT2FN) for key in ("hidden_act", "activation_function", "hidden_activation")),
        *(
            ("rope_type", each.get("rope_type", "default"), {"default", *ROPE_INIT_FUNCTIONS})
            for each in rotations(rope).values()
        ),
    ):
        if not isinstance(value, str) or value not in known:
            raise ColpipeError(f"{where}: {key} {value!r} is none that transformers has: {', '.join(sorted(known))}")
    return found


def rotations(rope: Mapping) -> dict[str, Mapping]:
    """Kind of attention → its rotary positions, from `rope_parameters`; one entry, for all kinds, where they share them."""
    each = {kind: value for kind, value in rope.items() if isinstance(value, Mapping)}
    return each or {"": rope}
