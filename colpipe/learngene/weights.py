"""Models as tensors by name: read one at a time from a folder or a loaded model, written as a stock Hugging Face folder."""

import json
import logging
import math
import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path

import torch

from colpipe.architectures.families import family_of
from colpipe.architectures.family import TensorSpec
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import require_space
from colpipe.learngene.gather import gather_rows, open_axes
from colpipe.learngene.scaling import as_used
from colpipe.learngene.selection import Selection
from colpipe.learngene.stored import (
    DTYPES,
    StoredTensor,
    complete_config,
    is_finite,
    read_config,
    stored_tensors,
)


class Weights:
    """A source model: its configuration, and its tensors by the names of the axis table, read when they are asked for.

    Args:
        source: a model folder (its safetensors may be sharded), or a loaded transformers model.

    Attributes:
        config: `config.json` mapping, with transformers' defaults.
        family, sizes, tied: its axis table, the size of every axis, whether the head is the embedding.
        dtype: that holds every stored weight, and of what is assembled from this model.

    Raises:
        ColpipeError: no configuration or weights, an unknown family, quantised weights, a file cut short, tensors that the
            table of the family does not have or that are missing.
    """

    def __init__(self, source):
        self.folder = Path(source) if isinstance(source, str | Path) else None
        if self.folder:
            config = read_config(self.folder)
            self.name = str(self.folder)
            stored: Mapping = stored_tensors(self.folder)
        else:
            config = json.loads(source.config.to_json_string(use_diff=False))
            self.name = config.get("_name_or_path") or type(source).__name__
            stored = source.state_dict()
        family_of(config, f"{self.name}/config.json")
        self.config = complete_config(config, f"{self.name}/config.json")
        for key in ("_name_or_path", "id2label", "label2id", "problem_type"):  # of this machine, or of another task
            self.config.pop(key, None)
        self.family = family_of(self.config, f"{self.name}/config.json")
        self.sizes = self.family.require_sizes(self.config, f"{self.name}/config.json")
        self._stored = self._by_table_name(stored)
        self.tied = self.family.is_tied(self.config) and not self._has_own_head()
        self.dtype = reduce(torch.promote_types, (place.dtype for _, place in self._stored.values()))

    def _named(self, role: str) -> str:
        """Name in the table of the first tensor of a role."""
        return next(name for name, tensor in self.family.tensors.items() if tensor.role == role)

    def _has_own_head(self) -> bool:
        """Whether a head is stored that differs from the embedding: transformers keeps it, tied or not."""
        head, embedding = self._named("head"), self._named("embed")
        if head not in self._stored:
            return False
        one, other = (self._stored[name][1] for name in (head, embedding))
        match one, other:
            case torch.Tensor(), torch.Tensor() if one.is_meta or one.data_ptr() == other.data_ptr():
                return False
        values = [self.read(name) for name in (head, embedding)]
        if torch.equal(*(value.to(torch.promote_types(values[0].dtype, values[1].dtype)) for value in values)):
            return False
        logging.getLogger(__name__).warning(
            f"{self.name}: says tie_word_embeddings, but {self._stored[head][0]} is stored with other values than the "
            "embedding: it is used, and what is made of the model is not tied"
        )
        return True

    @property
    def stored_names(self) -> dict[str, str]:
        """Name in the table, layers filled in → stored name; several of one where they are stored as one tensor."""
        return {name: stored for name, (stored, _) in self._stored.items()}

    def _by_table_name(
        self, stored: Mapping[str, StoredTensor | torch.Tensor]
    ) -> dict[str, tuple[str, StoredTensor | torch.Tensor]]:
        """Name in the table → stored name, and the tensor or where it is."""
        wanted = {
            stored.format(layer=layer): [part.format(layer=layer) for part in parts]
            for stored, parts in self.family.stored_names(tied=False)
            for layer in range(self.sizes["layer"])
        }
        found: dict[str, tuple[str, StoredTensor | torch.Tensor]] = {}
        unknown = []
        for name, place in stored.items():
            known = name
            for pattern, replacement in self.family.renamed.items():
                known = known if known in wanted else re.sub(rf"^{pattern}", replacement, known, count=1)
            if known in found:
                raise ColpipeError(f"{self.name}: {name} and {found[known][0]} are both stored, and both are {known}")
            if known in wanted:
                found[known] = (name, self._readable(name, place))
            elif not re.search(self.family.buffers, name):
                unknown.append(name)
        head, embedding = self._named("head"), self._named("embed")
        tied = self.family.is_tied(self.config)
        if tied and embedding not in found and head in found:  # stored once, under the other name
            found[embedding] = found.pop(head)
        missing = sorted(set(wanted) - set(found) - ({head} if tied else set()))
        if unknown or missing:
            raise ColpipeError(
                f"{self.name}: its tensors are not those of {self.family.name} with {self.sizes['layer']} layers: "
                f"missing {missing[:3] or 'none'}, unknown {sorted(unknown)[:3] or 'none'}"
            )
        for whole, parts in wanted.items():
            if parts != [whole] and whole in found:
                name, place = found.pop(whole)
                found |= {part: (name, self.part(part, place)) for part in parts}
        return found

    def part(self, name: str, whole):
        """The rows of a stored tensor, or of where it is, that are a tensor of the table (its name with the layer filled
        in); all of them where they are stored by themselves.

        Raises:
            ColpipeError: the stored tensor does not have the rows of its parts.
        """
        pattern = re.sub(r"\.\d+\.", ".{layer}.", name, count=1)
        parts = next((parts for parts in self.family.fused.values() if pattern in parts), None)
        if parts is None:
            return whole
        rows = {part: stored_shape(self.family.tensors[part], self.sizes)[0] for part in parts}
        if whole.shape[0] != sum(rows.values()):
            raise ColpipeError(
                f"{self.name}: the tensor that holds {name} has {whole.shape[0]} rows; in {self.family.name} of these sizes "
                f"it has {' + '.join(map(str, rows.values()))}"
            )
        first = sum(list(rows.values())[: list(parts).index(pattern)])
        if isinstance(whole, StoredTensor):
            return whole.rows(first, rows[pattern])
        return whole.narrow(0, first, rows[pattern])

    def _readable(self, name: str, place: StoredTensor | torch.Tensor) -> StoredTensor | torch.Tensor:
        """A tensor of one of the dtypes that are read."""
        kind = place.kind if isinstance(place, StoredTensor) else DTYPES.get(place.dtype, str(place.dtype))
        if kind not in DTYPES.values():
            where = place.path if isinstance(place, StoredTensor) else self.name
            raise ColpipeError(
                f"{where}: tensor {name} is {kind}; read are {', '.join(DTYPES.values())}: give the model dequantised"
            )
        return place

    def require_finite(self) -> None:
        """Refuse a model that holds NaN or infinities.

        Raises:
            ColpipeError: names the file and the tensor.
        """
        for name, (stored, place) in self._stored.items():
            if not is_finite(self.read(name)):
                where = place.path if isinstance(place, StoredTensor) else self.name
                raise ColpipeError(f"{where}: tensor {stored} holds NaN or infinite values: the model is damaged")

    def read(self, name: str) -> torch.Tensor:
        """A tensor by its name in the table, as stored; from a file it is mapped, not yet read."""
        stored, place = self._stored[name]
        if isinstance(place, torch.Tensor):
            if place.is_meta:
                raise ColpipeError(
                    f"{self.name}: {stored} is on the meta device: the model is offloaded or has no weights; give it loaded "
                    "into memory, or its folder"
                )
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
            The tensor as it is used (`scaling.py`). An untied head is the embedding in a tied source.

        Raises:
            ColpipeError: the selection has no source for the layer.
        """
        for value in self.take_rows(name, layer, selection, None):
            return value
        raise ColpipeError(f"{self.name}: {name}: nothing is selected for layer {layer} of the target")

    def rescaled(self, value: torch.Tensor, tensor: TensorSpec, origin: int | None, layer: int | None) -> torch.Tensor:
        """An opened tensor that goes from layer `origin` to `layer`, where attention scores may be scaled otherwise."""
        if "qkv" not in tensor.names or origin is None or layer is None:
            return value
        scale = self.family.query_scale(self.config, origin, layer)
        if scale == 1:
            return value
        factors = torch.ones(3, device=value.device)
        factors[0] = scale
        shape = [3 if axis == "qkv" else 1 for axis in tensor.names]
        return value.float() * factors.view(shape)

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
            opened = self.rescaled(open_axes(value, tensor, self.sizes), tensor, origin, layer)
            for part in gather_rows(opened, tensor, selection.at(origin), rows):
                yield as_used(part, self.family, name, self.sizes["hidden"], self.tied)
        except ColpipeError as error:
            raise ColpipeError(f"{self.name}: {name.format(layer=origin)}: {error}") from None


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
