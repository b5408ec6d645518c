"""Model folders as tensors by name: read from safetensors one at a time, written as a stock Hugging Face folder."""

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from colpipe.checkpoint import require_space
from colpipe.errors import ColpipeError


class Weights:
    """Tensors of a model folder by name, read from its (possibly sharded) safetensors files.

    Raises:
        ColpipeError: there are no weights, a file is cut short, or a tensor is missing.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        index = self.folder / "model.safetensors.index.json"
        try:
            if index.exists():
                self.files = json.loads(index.read_text())["weight_map"]
            else:
                with safe_open(self.folder / "model.safetensors", "pt") as file:
                    self.files = dict.fromkeys(file.keys(), "model.safetensors")
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ColpipeError(f"{self.folder}: its weights cannot be read: {error}") from None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.files:
            raise ColpipeError(f"{self.folder}: has no tensor {name}; its first are {sorted(self.files)[:3]}")
        path = self.folder / self.files[name]
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ColpipeError(f"{path}: tensor {name} cannot be read: {error}") from None


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


def write_model(tensors: dict[str, Tensor], config: dict, folder: Path) -> None:
    """A stock Hugging Face folder from tensors and a `config.json` mapping; a tied head is left to transformers.

    Raises:
        ColpipeError: the disk has no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), "a model")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
)


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what stands beside the weights: tokenizer and generation settings."""
    for pattern in COMPANIONS:
        for path in Path(source).glob(pattern):
            shutil.copy(path, folder)
