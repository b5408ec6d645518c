from colpipe.learngene.selection import evenly_spaced, evenly_spaced_with, expand, nested, subset


def test_expand_replicates_the_last_as_the_paper_does():
    assert expand(12, 14) == [*range(12), 10, 11]
    assert expand(3, 8) == [0, 1, 2, 1, 2, 0, 1, 2]  # more than twice as long: whole rounds, the last one complete
    assert expand(4, 4) == [0, 1, 2, 3]
    assert expand(5, 3) == [0, 1, 2]


def test_subset_takes_the_first():
    assert subset(24, 14) == list(range(14))


def test_evenly_spaced_keeps_both_ends():
    assert evenly_spaced(5, 4) == [0, 1, 3, 4]
    assert evenly_spaced(6, 2) == [0, 5]
    assert evenly_spaced(6, 1) == [0]
    for source in range(1, 30):
        for target in range(1, source + 1):
            chosen = evenly_spaced(source, target)
            assert len(set(chosen)) == target
            assert chosen == sorted(chosen)


def test_evenly_spaced_with_contains_what_is_kept():
    assert evenly_spaced_with([0, 1, 3, 4], 5, 5) == [0, 1, 2, 3, 4]
    assert evenly_spaced_with([0, 3, 5], 6, 4) == [0, 1, 3, 5]
    assert evenly_spaced_with([0, 3, 5], 6, 2) == [0, 5]


def test_nested_has_nothing_beyond_its_size():
    assert nested(2, 4) == [0, 1, None, None]
