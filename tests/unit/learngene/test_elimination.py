"""In which order the inputs of a projection can be spared, against what least squares leave."""

import pytest
import torch

from colpipe.learngene import elimination
from colpipe.learngene.elimination import kept_longest


@pytest.fixture
def projection(monkeypatch):
    """What 9 inputs say on 200 tokens, and a projection of them to 5; without a ridge."""
    monkeypatch.setattr(elimination, "RIDGE", 0.0)
    draw = torch.Generator().manual_seed(0)
    mixed = torch.randn(9, 9, generator=draw, dtype=torch.float64)
    return torch.randn(200, 9, generator=draw, dtype=torch.float64) @ mixed, torch.randn(
        9, 5, generator=draw, dtype=torch.float64
    )


def left(heard, weight, kept: list[int]) -> float:
    """The squared error that fitting the kept inputs to what all of them wrote leaves."""
    wanted = heard @ weight
    return (wanted - heard[:, kept] @ torch.linalg.lstsq(heard[:, kept], wanted).solution).square().sum().item()


def test_what_goes_next_is_what_least_squares_miss_least(projection):
    heard, weight = projection
    order, there = kept_longest(heard.T @ heard, weight), set(range(9))
    for gone in order[:0:-1]:
        errors = {one: left(heard, weight, sorted(there - {one})) for one in there}
        assert gone == min(errors, key=errors.__getitem__)
        there.remove(gone)
    assert there == {order[0]}


def test_in_few_rounds_all_are_ordered_once(projection, monkeypatch):
    heard, weight = projection
    monkeypatch.setattr(elimination, "ROUNDS", 4)
    order = kept_longest(heard.T @ heard, weight)  # three at a time
    errors = [left(heard, weight, [other for other in range(9) if other != one]) for one in range(9)]
    assert sorted(order) == list(range(9))
    assert sorted(order[-3:]) == sorted(sorted(range(9), key=errors.__getitem__)[:3])


def test_a_copy_goes_before_what_has_none_and_silence_before_both():
    draw = torch.Generator().manual_seed(1)
    heard = torch.randn(50, 6, generator=draw)
    heard[:, 4] = heard[:, 1]
    heard[:, 2] = 0
    weight = torch.ones(6, 3)
    order = kept_longest(heard.T @ heard, weight)
    assert order[-1] == 2 and order[-2] in (1, 4)


def test_inputs_that_never_say_anything_have_an_order_too():
    assert sorted(kept_longest(torch.zeros(4, 4), torch.zeros(4, 2))) == [0, 1, 2, 3]
