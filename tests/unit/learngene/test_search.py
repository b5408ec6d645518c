"""Candidates scored without training: what is tried, and which one is the best."""

import pytest

from colpipe.config.constants import SEARCH_COMPENSATIONS as COMPENSATIONS
from colpipe.config.sizing import automatic_alpha
from colpipe.errors import ColpipeError
from colpipe.learngene.search import best, sweep


def test_automatic_alpha_is_how_near_the_target_is_to_the_smaller():
    assert automatic_alpha(100, 300, 150) == 0.75
    assert automatic_alpha(100, 300, 100) == 1
    assert automatic_alpha(100, 300, 300) == 0
    assert automatic_alpha(100, 300, 50) == 1 and automatic_alpha(100, 300, 350) == 0


def test_automatic_alpha_of_neighbours_of_one_size():
    assert 0 <= automatic_alpha(100, 100, 100) <= 1


def test_every_combination_is_a_row(gpt2):
    targets = [gpt2.sizes(3, 2, 20), gpt2.sizes(4, 3, 30)]
    seen = []

    def score(model) -> float:
        seen.append(model.num_parameters())
        return float(len(seen))

    rows = sweep(*gpt2.weights, targets, score, [0.5, "auto"], [0.0, 1.0], ["paper", "nested"])
    assert [row["loss"] for row in rows] == list(range(1, 17))
    assert [row["parameters"] for row in rows] == seen
    assert {(row["layers"], row["heads"], row["kv_heads"], row["hidden"], row["ffn"]) for row in rows} == {
        (3, 2, 2, 8, 20),
        (4, 3, 3, 12, 30),
    }
    assert len({(row["layers"], row["method"], row["alpha"], row["compensate"]) for row in rows}) == 16
    small, large = gpt2.small.num_parameters(), gpt2.large.num_parameters()
    for row in rows[1::2]:
        assert row["alpha"] == pytest.approx((large - row["parameters"]) / (large - small))


def test_compensation_is_tried_only_where_channels_are_lost(llama):
    as_wide, narrower = llama.sizes(3, 4, 40), llama.sizes(3, 3, 40)
    for target, tried in ((as_wide, COMPENSATIONS[:1]), (narrower, COMPENSATIONS)):
        rows = sweep(*llama.weights, [target], lambda model: 0.0, [0.5])
        assert [row["compensate"] for row in rows] == [*tried]


def test_a_candidate_that_cannot_be_made_is_refused(gpt2):
    with pytest.raises(ColpipeError, match=r"large: layer is 5, the target's 6 is more than that"):
        sweep(*gpt2.weights, [gpt2.sizes(6, 3, 30)], lambda model: 0.0, [0.5])


def test_of_equal_losses_the_first_is_best():
    assert best([{"loss": 2, "n": 0}, {"loss": 1, "n": 1}, {"loss": 1, "n": 2}])["n"] == 1
