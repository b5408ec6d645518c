"""Which widths new shapes have."""

import pytest

from colpipe.architectures.families import FAMILIES
from colpipe.architectures.widths import align, alignment, head_step, hidden_step, not_quantisable, proportional_units


@pytest.mark.parametrize(
    ("asked", "narrowest", "step"),
    [(None, 256, 64), (None, 255, 8), (32, 48, 32), (96, 1024, 96), (1, 4096, 8)],
)
def test_what_widths_are_multiples_of(asked, narrowest, step):
    assert alignment(asked, narrowest) == step


def test_the_nearest_multiple_is_at_least_one_step():
    assert [align(width, 64) for width in (1, 95, 97, 1365.3)] == [64, 64, 128, 1344]


@pytest.mark.parametrize(
    ("family", "head_dim", "channels", "heads"),
    [
        ("llama", 64, 576, 1),  # beside nine heads, a multiple of them
        ("qwen3", 64, 64, 1),
        ("qwen3", 8, 64, 2),  # 2 groups × 2 queries × 8 = 32
        ("gpt2", 64, None, 1),
        ("gpt_neox", 80, None, 4),  # 4 × 80 = 320 = 5 × 64
    ],
)
def test_heads_move_with_the_width(family, head_dim, channels, heads):
    table = FAMILIES[family]
    assert head_step(table, {"query": 2, "head_dim": head_dim}, 64) == heads
    assert head_step(table, {"query": 2, "head_dim": head_dim}, 8) == 1
    if channels:
        assert hidden_step(table, 9, 64) == channels


@pytest.mark.parametrize(
    ("hidden", "source", "units"),
    [
        (480, (576, 1536), 1280),
        (512, (576, 1536), 1344),  # 1365.3
        (576, (576, 1500), 1500),  # the source's own
        (1152, (576, 1500), 3000),  # twice, as HyperCloning needs it
        (570, (576, 1540), 1536),  # 1524: not more than the source has
        (560, (576, 40), 64),
        (24, (32, 85), 64),  # models for trying things out: 63.75
    ],
)
def test_units_follow_the_channels(hidden, source, units):
    assert proportional_units(hidden, dict(zip(("hidden", "ffn"), source, strict=True))) == units


def test_a_phrase_says_what_is_not_quantisable():
    assert not_quantisable({"hidden": 96, "ffn": 1536}) == ""
    phrase = not_quantisable({"hidden": 450, "ffn": 1152, "heads × head_dim": 48})
    assert phrase == "not quantisable (Q8_0, Q4_0): hidden 450, heads × head_dim 48, not in multiples of 32"
