"""Planned shapes: near the request, and with widths that deploy."""

from itertools import pairwise

import numpy as np
import pytest

from colpipe.config.loading import load_study, read_study
from colpipe.config.parts import Architecture, Shape
from colpipe.config.sizing import Endpoint, plan_shape
from colpipe.errors import ColpipeError
from tests.conftest import CHECKOUT

SMOLLM2 = Architecture(family="llama", vocabulary=49152, positions=8192, tied=True)
LARGE = Shape(layers=30, heads=9, kv_heads=3, head_dim=64, hidden=576, ffn=1536)
SMALL = Shape(layers=15, heads=6, kv_heads=2, head_dim=64, hidden=384, ffn=1024)


def between(architecture: Architecture, small: Shape, large: Shape, share: float) -> tuple[Shape, float]:
    """The planned shape so far between two others, and how far its parameters are from the request."""
    counts = [architecture.parameters(shape) for shape in (small, large)]
    wanted = round(counts[0] + share * (counts[1] - counts[0]))
    shape = plan_shape(architecture, Endpoint("small", small), Endpoint("large", large), wanted)
    return shape, architecture.parameters(shape) / wanted - 1


def chains() -> list:
    """(architecture, two neighbours) of SmolLM2 and of the studies of public models."""
    found = [pytest.param(SMOLLM2, SMALL, LARGE, id="smollm2")]
    for name in ("gpt2", "qwen3", "pythia"):
        study = load_study(read_study(CHECKOUT / f"config/{name}.yaml"))
        members = list(study.chain)
        for large, small in pairwise(members):
            ends = study.chain[small].shape, study.chain[large].shape
            if ends[0].head_dim == ends[1].head_dim:
                found.append(pytest.param(study.architecture, *ends, id=f"{small}-{large}"))
    return found


@pytest.mark.parametrize(("architecture", "small", "large"), chains())
def test_planned_sizes_can_be_quantised(architecture, small, large):
    quants, types = pytest.importorskip("gguf.quants"), pytest.importorskip("gguf").GGMLQuantizationType
    widths = set()
    for share in np.linspace(0.02, 0.98, 13):
        shape, miss = between(architecture, small, large, share)
        assert abs(miss) <= 0.01 and architecture.table.shape_problem(architecture.sizes(shape)) is None
        assert shape.hidden % 32 == shape.ffn % 32 == 0
        widths |= set(shape.widths.values())
    for width in widths:
        for kind in (types.Q8_0, types.Q4_0):
            assert len(quants.quantize(np.ones((2, width), np.float32), kind)) == 2


@pytest.mark.parametrize("millions", range(60, 121, 5))
@pytest.mark.parametrize("align", [None, 32])
def test_every_size_of_smollm2_is_planned_within_a_hundredth(millions, align):
    architecture = SMOLLM2.model_copy(update={"align": align})
    shape = plan_shape(architecture, Endpoint("small", SMALL), Endpoint("large", LARGE), millions * 10**6)
    assert abs(architecture.parameters(shape) / millions / 10**6 - 1) <= 0.01
    assert shape.hidden % 32 == shape.ffn % 32 == shape.hidden % shape.heads == 0
    assert (shape.heads, shape.kv_heads) in ((6, 2), (9, 3)) and shape.hidden in (384, 480, 576)[:: 1 if align else 2]


def test_finer_widths_are_taken_where_nothing_else_comes_near():
    small, large = (LARGE.model_copy(update={"ffn": ffn}) for ffn in (1408, 1504))
    assert between(SMOLLM2, small, large, 1.0)[0].ffn == 1504  # with 1472 it has 1.3 % less
    assert between(SMOLLM2, small, large, 0.7)[0].ffn == 1472


def test_what_both_neighbours_have_stays_as_it_is():
    small, large = (LARGE.model_copy(update={"layers": layers, "hidden": 450, "ffn": 1000}) for layers in (10, 30))
    shape, _ = between(SMOLLM2, small, large, 0.5)
    assert (shape.layers, shape.hidden, shape.ffn) == (20, 450, 1000)


@pytest.mark.parametrize("align", [None, 1])
def test_micro_models_have_any_width(align):
    architecture = Architecture(vocabulary=2048, positions=128, align=align)
    small, large = (Shape(layers=layers, heads=heads, hidden=16 * heads) for layers, heads in ((3, 4), (6, 8)))
    found = [between(architecture, small, large, share) for share in np.linspace(0.05, 0.95, 10)]
    assert all(abs(miss) <= 0.01 for _, miss in found)
    assert len({shape.hidden for shape, _ in found}) >= 4


def test_an_alignment_that_is_asked_for_holds_for_micro_models_too():
    architecture = Architecture(vocabulary=2048, positions=128, align=32)
    small, large = (Shape(layers=layers, heads=heads, hidden=16 * heads) for layers, heads in ((3, 4), (6, 8)))
    shape, _ = between(architecture, small, large, 0.5)
    assert shape.heads % 2 == shape.hidden % 32 == shape.ffn % 32 == 0


def test_a_refusal_says_by_how_much_it_would_miss_and_what_else_there_is():
    architecture = SMOLLM2.model_copy(update={"align": 576})
    small, large = (LARGE.model_copy(update={"layers": 24, "ffn": ffn}) for ffn in (1152, 1728))
    with pytest.raises(ColpipeError) as refusal:
        between(architecture, small, large, 0.5)
    assert str(refusal.value) == (
        "no shape between small (24L/9H(3KV)/576/ffn 1152) and large (24L/9H(3KV)/576/ffn 1728), hidden and ffn in "
        "multiples of 576, has 109,293,120 parameters within 1%; the closest is 24L/9H(3KV)/576/ffn 1152 with "
        "97,349,184 (-10.93%); of any width (architecture.align: 1) 24L/9H(3KV)/576/ffn 1440 with 109,293,120 (+0.00%)"
    )


def test_a_refusal_that_no_other_width_would_mend_speaks_of_none():
    small = LARGE.model_copy(update={"layers": 15})
    with pytest.raises(ColpipeError) as refusal:
        between(SMOLLM2, small, LARGE, 0.1)
    assert str(refusal.value) == (
        "no shape between small (15L/9H(3KV)/576/ffn 1536) and large (30L/9H(3KV)/576/ffn 1536) has 86,723,712 parameters "
        "within 1%; the closest is 16L/9H(3KV)/576/ffn 1536 with 84,953,664 (-2.04%)"
    )


def test_neighbours_whose_heads_differ_have_nothing_between_them():
    wide = LARGE.model_copy(update={"heads": 3, "kv_heads": 1, "head_dim": 192})
    with pytest.raises(ColpipeError, match="small has 192 channels in a head, large 64; heads are taken whole"):
        between(SMOLLM2, wide, LARGE.model_copy(update={"layers": 31}), 0.5)


@pytest.mark.parametrize("align", [2, 16, 31, 48])
def test_an_alignment_is_of_whole_blocks_or_any(align):
    with pytest.raises(
        ValueError, match=f"{align}: give a multiple of 32, which Q8_0 and Q4_0 take, or 1 for any width"
    ):
        Architecture(align=align)
