"""Neighbours of every family, small enough to count: what the tests of this folder share."""

from dataclasses import dataclass
from pathlib import Path

import torch

from colpipe.architectures.families import TABLES
from colpipe.config.parts import Architecture, Shape
from colpipe.learngene.weights import Weights

GROUPED = ("llama", "qwen2", "qwen3")  # families with grouped queries: two query heads to a key/value head here
# So have these, in test_whole_models.py: not all of their numbers are another model's unchanged.
NEWER = tuple(name for name in TABLES if name not in ("gpt2", "gpt_neox", *GROUPED))
FAMILIES = [(family, tied) for family in ("gpt2", "gpt_neox", *GROUPED) for tied in (True, False)]
NAMES = [f"{family}-{'tied' if tied else 'untied'}" for family, tied in FAMILIES]
HEAD_DIM = 4
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 35], [8, 9, 7, 9, 3, 2, 38, 46, 2, 6]])


@dataclass(frozen=True)
class Neighbours:
    """A smaller and a larger model: loaded, and as folders."""

    architecture: Architecture
    small: torch.nn.Module
    large: torch.nn.Module
    small_folder: Path
    large_folder: Path

    @property
    def weights(self) -> tuple[Weights, Weights]:
        return Weights(self.small_folder), Weights(self.large_folder)

    @property
    def small_shape(self) -> Shape:
        return shape(self.architecture.family, 2, 2, 20)

    @property
    def large_shape(self) -> Shape:
        return shape(self.architecture.family, 5, 4, 40)

    @property
    def between(self) -> Shape:
        return shape(self.architecture.family, 4, 3, 30)

    def sizes(self, *numbers: int, hidden: int | None = None) -> dict[str, int]:
        """Size of every axis: of layers, width and ffn, or of the shape between the two."""
        target = shape(self.architecture.family, *numbers, hidden=hidden) if numbers else self.between
        return self.architecture.sizes(target)


def architecture(family: str, tied: bool) -> Architecture:
    """50 tokens, 16 positions; NeoX turns half of its 4 channels, because a quarter would be half a pair."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    more = {"rope_parameters": rope} if family == "gpt_neox" else {}
    return Architecture(family=family, vocabulary=50, positions=16, tied=tied, config=more)


def shape(family: str, layers: int, width: int, ffn: int, hidden: int | None = None) -> Shape:
    """`width` key/value heads; 4 channels for each of them, or `hidden` where the family lets it differ."""
    if family not in (*GROUPED, *NEWER):
        return Shape(layers=layers, heads=width, hidden=HEAD_DIM * width, ffn=ffn)
    if "head_dim" not in TABLES[family].keys:
        return Shape(layers=layers, heads=2 * width, kv_heads=width, hidden=HEAD_DIM * 2 * width, ffn=ffn)
    hidden = hidden or HEAD_DIM * width
    return Shape(layers=layers, heads=2 * width, kv_heads=width, head_dim=HEAD_DIM, hidden=hidden, ffn=ffn)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(IDS).logits


def distance(first, second) -> float:
    """Largest difference between the logits of two models, relative to the largest logit."""
    one, other = logits(first), logits(second)
    return ((one - other).abs().max() / other.abs().max()).item()


def assert_same(tensors: dict, expected: dict) -> None:
    """The same names and, bit for bit, the same numbers."""
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        assert torch.equal(tensors[name], value), name
