"""Models as tensors by name: read one at a time from a folder or a loaded model, written as a stock Hugging Face folder."""

import json
import math
import mmap
import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from colpipe.architectures.families import TensorSpec, family_of
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import require_space
from colpipe.learngene.gather import gather_rows, open_axes
from colpipe.learngene.selection import Selection

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
        start: offset of its first byte in the file.
    """

    path: Path
    dtype: torch.dtype
    shape: Sequence[int]
    start: int

    def map(self) -> torch.Tensor:
        """The tensor, mapped by itself: its pages leave memory with it.

        `safe_open` would read the whole header and map the whole file again for each tensor.

        Raises:
            OSError, ValueError: the file is gone, or shorter than it was.
        """
        skipped = self.start % mmap.ALLOCATIONGRANULARITY
        count = math.prod(self.shape)
        with open(self.path, "rb") as file:
            pages = mmap.mmap(
                file.fileno(),
                skipped + count * self.dtype.itemsize,
                access=mmap.ACCESS_COPY,
                offset=self.start - skipped,
            )
        return torch.frombuffer(pages, dtype=self.dtype, count=count, offset=skipped).view(tuple(self.shape))


class Weights:
    """A source model: its configuration, and its tensors by the names of the axis table, read when they are asked for.

    Args:
        source: a model folder (its safetensors may be sharded), or a loaded transformers model.

    Attributes:
        config: `config.json` mapping.
        family, sizes, tied: its axis table, the size of every axis, whether the head is the embedding.
        dtype: of the stored embedding, and of what is assembled from this model.

    Raises:
        ColpipeError: no configuration or weights, an unknown family, a file cut short, tensors that the table of the
            family does not have or that are missing.
    """

    def __init__(self, source):
        self.folder = Path(source) if isinstance(source, str | Path) else None
        if self.folder:
            self.config = read_config(self.folder)
            self.name = str(self.folder)
            stored = _stored_tensors(self.folder)
        else:
            self.config = json.loads(source.config.to_json_string(use_diff=False))
            self.name = self.config.get("_name_or_path") or type(source).__name__
            stored = source.state_dict()
        self.family = family_of(self.config, f"{self.name}/config.json")
        self.sizes, self.tied = self.family.sizes(self.config), self.family.is_tied(self.config)
        self._stored = self._by_table_name(stored)
        embedding = next(name for name, tensor in self.family.tensors.items() if tensor.role == "embed")
        self.dtype = self._stored[embedding][1].dtype

    @property
    def stored_names(self) -> dict[str, str]:
        """Name in the table, layers filled in → stored name."""
        return {name: stored for name, (stored, _) in self._stored.items()}

    def _by_table_name(
        self, stored: Mapping[str, StoredTensor | torch.Tensor]
    ) -> dict[str, tuple[str, StoredTensor | torch.Tensor]]:
        """Name in the table → stored name, and the tensor or where it is."""
        wanted = {
            name.format(layer=layer)
            for name, _ in self.family.table(tied=False)
            for layer in range(self.sizes["layer"])
        }
        found, unknown = {}, []
        for name, place in stored.items():
            known = name
            for pattern, replacement in self.family.renamed.items():
                known = known if known in wanted else re.sub(rf"^{pattern}", replacement, known, count=1)
            if known in wanted:
                found[known] = (name, place)
            elif not re.search(self.family.buffers, name):
                unknown.append(name)
        head = next(name for name, tensor in self.family.tensors.items() if tensor.role == "head")
        missing = sorted(wanted - set(found) - ({head} if self.tied else set()))
        if unknown or missing:
            raise ColpipeError(
                f"{self.name}: its tensors are not those of {self.family.name} with {self.sizes['layer']} layers: "
                f"missing {missing[:3] or 'none'}, unknown {sorted(unknown)[:3] or 'none'}"
            )
        return found

    def read(self, name: str) -> torch.Tensor:
        """A tensor by its name in the table, as stored; from a file it is mapped, not yet read."""
        stored, place = self._stored[name]
        if isinstance(place, torch.Tensor):
            return place.detach().cpu()
        try:
            return place.map()
        except (OSError, ValueError) as error:
            raise ColpipeError(f"{place.path}: tensor {stored} cannot be read: {error}") from None

    def take(self, name: str, layer: int | None, selection: Selection) -> torch.Tensor:
        """The selected part of a tensor, one dimension per axis, for one layer of the target.

        Args:
            name: as in the table, with `{layer}`.
            layer: of the target; None for a tensor outside the layers.
            selection: what is taken.

        Returns:
            The tensor as stored. An untied head is the embedding in a tied source.

        Raises:
            ColpipeError: the selection has no source for the layer.
        """
        for value in self.take_rows(name, layer, selection, None):
            return value
        raise ColpipeError(f"{self.name}: {name}: nothing is selected for layer {layer} of the target")

    def take_rows(self, name: str, layer: int | None, selection: Selection, rows: int | None) -> Iterator[torch.Tensor]:
        """What `take` gives, so many rows (indices of the first axis) at a time; nothing where it has no source."""
        tensor = self.family.tensors[name]
        origin = None
        if layer is not None and (origin := selection.layers[layer]) is None:
            return
        if tensor.role == "head" and self.tied:
            name, tensor = next(item for item in self.family.tensors.items() if item[1].role == "embed")
        value = self.read(name.format(layer=origin))
        try:
            yield from gather_rows(open_axes(value, tensor, self.sizes), tensor, selection.at(origin), rows)
        except ColpipeError as error:
            raise ColpipeError(f"{self.name}: {name.format(layer=origin)}: {error}") from None


def _stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Stored tensor name → where it is, of all files of a model."""
    index = folder / "model.safetensors.index.json"
    try:
        files = ["model.safetensors"]
        if index.exists():
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError) as error:
        raise ColpipeError(f"{index}: cannot be read: {error}") from None
    return {name: tensor for file in files for name, tensor in read_header(folder / file).items()}


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Stored tensor name → where it is in a safetensors file, which is checked first.

    Raises:
        ColpipeError: there is none, it is cut short, or it is no safetensors file.
    """
    dtypes = {name: dtype for dtype, name in DTYPES.items()}
    try:
        with safe_open(path, "pt"):
            pass
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
    except (OSError, ValueError, SafetensorError) as error:
        raise ColpipeError(f"{path}: weights cannot be read: {error}") from None
    return {
        name: StoredTensor(path, dtypes[entry["dtype"]], entry["shape"], 8 + size + entry["data_offsets"][0])
        for name, entry in header.items()
        if entry.get("dtype") in dtypes
    }


def read_config(folder: Path) -> dict:
    """A model folder's `config.json`.

    Raises:
        ColpipeError: there is none, or it is not JSON.
    """
    path = Path(folder) / "config.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ColpipeError(f"{path}: cannot be read: {error}") from None


def write_model(
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, torch.Tensor]],
    config: dict,
    dtype: torch.dtype,
    folder: Path,
) -> None:
    """A stock Hugging Face folder, written tensor by tensor, so that no more than one is in memory.

    safetensors' own writer wants all tensors at once. The format is a length, a JSON header and the bytes; the header
    needs only the shapes, which are known beforehand.

    Args:
        shapes: name → shape, in the order in which `tensors` gives them.
        tensors: (name, tensor of that shape).
        config: `config.json` mapping.
        dtype: in which the tensors are stored.

    Raises:
        ColpipeError: the disk has no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    require_space(folder, end, "a model")
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for (expected, shape), (name, tensor) in zip(shapes.items(), tensors, strict=True):
            rows = 0
            for part in [tensor] if isinstance(tensor, torch.Tensor) else tensor:
                if (name, tuple(part.shape[1:])) != (expected, tuple(shape[1:])):
                    raise ColpipeError(
                        f"{folder}: {expected} of shape {shape} was to come, not {name} {tuple(part.shape)}"
                    )
                rows += len(part)
                file.write(part.to(dtype).contiguous().view(-1).view(torch.uint8).numpy())
            if rows != shape[0]:
                raise ColpipeError(f"{folder}: {expected} of shape {shape} was to come, {rows} rows of it came")
    config = {**config, "dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


TOKENIZER_FILES = (
    *("tokenizer*", "vocab.*", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("*.model", "*.tiktoken", "tekken.json", "chat_template*", "additional_chat_templates"),
)
COMPANIONS = (*TOKENIZER_FILES, "generation_config.json")


def copy_companions(source: Path, folder: Path, patterns: Sequence[str] = COMPANIONS) -> None:
    """Copy what stands beside the weights: tokenizer and generation settings; no code."""
    for path in {path for pattern in patterns for path in Path(source).glob(pattern)}:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
        elif path.suffix != ".py":
            shutil.copy(path, folder)


def stored_shape(tensor: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Shape of a tensor as it is stored: `hidden (qkv head head_dim)` → (hidden, 3 · heads · head_dim)."""
    groups = re.findall(r"\(([^)]*)\)|(\w+)", tensor.axes)
    return tuple(math.prod(sizes[axis] for axis in (inside or alone).split()) for inside, alone in groups)
