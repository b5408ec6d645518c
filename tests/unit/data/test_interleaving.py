"""Mixtures: shares of tokens, to half a document, in the whole and in any evenly spread part."""

import numpy as np
import pytest

from colpipe.data.interleaving import evenly_spread, interleaved, largest_mixture, spread_order


def lengths_of(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(4, 1, count).astype(np.int64) + 1


def test_the_scarcest_part_decides_how_much_there_is():
    tokens = {"wikipedia": 7000, "own": 1500}
    assert largest_mixture(tokens, {"wikipedia": 0.7, "own": 0.3}) == pytest.approx(5000)  # own: 0.3 of 5000
    assert largest_mixture(tokens, {"wikipedia": 0.9, "own": 0.1}) == pytest.approx(7000 / 0.9)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9, 0.999, 1.0])
def test_documents_are_evenly_spread_and_have_the_tokens_asked_for(share):
    lengths = lengths_of(2000, 1)
    wanted = share * lengths.sum()
    chosen = evenly_spread(lengths, wanted)
    assert len(set(chosen.tolist())) == len(chosen) and chosen.tolist() == sorted(chosen)
    assert abs(lengths[chosen].sum() - wanted) <= lengths.max() / 2
    for part in range(4):  # and so it is in each quarter
        inside = chosen[(chosen >= part * 500) & (chosen < part * 500 + 500)]
        due = share * lengths[part * 500 : part * 500 + 500].sum()
        assert abs(lengths[inside].sum() - due) <= lengths.max()
    if share == 1.0:
        assert chosen.tolist() == list(range(2000))


def test_every_part_of_a_mixture_has_its_shares():
    parts = [lengths_of(900, 2), lengths_of(350, 3), np.full(40, 700)]
    part, index = interleaved(parts)
    for number, lengths in enumerate(parts):
        assert index[part == number].tolist() == list(range(len(lengths)))  # all of them, in their order
    flat = np.array([parts[p][i] for p, i in zip(part, index, strict=True)])
    total, longest = flat.sum(), flat.max()
    ends = np.cumsum(flat)
    for begin in range(8):
        inside = (ends > begin * total / 8) & (ends <= (begin + 1) * total / 8)
        for number, lengths in enumerate(parts):
            assert abs(flat[inside & (part == number)].sum() - lengths.sum() / 8) <= 2 * longest


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000])
def test_every_beginning_of_the_order_is_evenly_spread(count):
    order = spread_order(count).tolist()
    assert sorted(order) == list(range(count))
    for taken in {1, 2, count // 3, count // 2, count} - {0}:
        places = sorted(order[:taken])
        gaps = np.diff([-1, *places, count])
        assert gaps.max() <= 2 * -(-count // taken) + 1
    assert spread_order(8).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
