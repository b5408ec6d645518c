"""Index maps: which index of a source each index of a target comes from."""

import pytest

from colpipe.architectures.layers import between, evenly_spaced, expand, keep_layers, subset, tile
from colpipe.errors import ColpipeError
from colpipe.learngene.selection import Selection


def test_expand_replicates_the_last_as_the_paper_does():
    assert expand(12, 14) == [*range(12), 10, 11]
    assert expand(3, 8) == [0, 1, 2, 1, 2, 0, 1, 2]  # more than twice as long: whole rounds, the last one complete
    assert expand(4, 4) == [0, 1, 2, 3]
    assert expand(5, 3) == [0, 1, 2]


def test_subset_takes_the_first_or_all_there_are():
    assert subset(24, 14) == list(range(14))
    assert subset(2, 4) == [0, 1]


def test_tile_repeats_the_whole():
    assert tile(3, 9) == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert tile(3, 2) == [0, 1]


def test_evenly_spaced_keeps_both_ends():
    assert evenly_spaced(5, 4) == [0, 1, 3, 4]
    assert evenly_spaced(6, 2) == [0, 5]
    assert evenly_spaced(6, 1) == [0]
    assert evenly_spaced(3, 0) == []
    for source in range(1, 30):
        for target in range(1, source + 1):
            chosen = evenly_spaced(source, target)
            assert len(set(chosen)) == target
            assert chosen == sorted(chosen)
            assert chosen[0] == 0 and (target == 1 or chosen[-1] == source - 1)


@pytest.mark.parametrize(
    ("select", "ranking", "kept"),
    [
        ("first", None, [0, 1, 2]),
        ("even", [4, 1, 3, 0, 2], [0, 2, 4]),
        ("rank", [4, 1, 3, 0, 2], [1, 3, 4]),
        ("rotate", [4, 1, 3, 0, 2], [1, 3, 4]),
    ],
)
def test_a_subset_keeps_layers(select, ranking, kept):
    assert keep_layers(select, 5, 3, ranking) == kept


@pytest.mark.parametrize("select", ["rank", "rotate"])
def test_the_best_layers_of_no_ranking_are_refused(select):
    with pytest.raises(ColpipeError, match=f"select '{select}': the source's layers have no ranking; first and even"):
        keep_layers(select, 5, 3, None)


def test_between_contains_what_is_kept():
    assert between([0, 1, 3, 4], 5, 5) == [0, 1, 2, 3, 4]
    assert between([0, 3, 5], 6, 4) == [0, 1, 3, 5]
    assert between([0, 3, 5], 6, 3) == [0, 3, 5]
    assert between([0, 3, 5], 6, 2) == [0, 5]
    for target in range(2, 12):
        layers = between([0, 11], 12, target)
        assert len(set(layers)) == target and layers == sorted(layers) and {0, 11} <= set(layers)


def test_between_adds_the_best_of_a_ranking():
    ranking = [5, 2, 4, 0, 1, 3]
    assert between([0, 3], 6, 4, ranking) == [0, 2, 3, 5]
    assert between([0, 3, 5], 6, 2, ranking) == [0, 5]  # shorter than what is kept: the best of it
    assert between([0, 3, 5], 6, 1, ranking) == [5]


def test_a_selection_has_maps_of_its_own_for_a_layer():
    selection = Selection([1, None], {"hidden": [0, 1]}, {"ffn": [[2, 0], [0, 1]]})
    assert selection.at(0) == {"hidden": [0, 1], "ffn": [2, 0]}
    assert selection.at(None) == {"hidden": [0, 1]}
    assert selection.brief() == {"layer": [1, None], "hidden": 2, "ffn": [[2, 0], 2]}
