"""When choices can be told apart, in any script."""

import pytest

from colpipe.data.choices import equal_choices, letters, require_letters
from colpipe.errors import ColpipeError


@pytest.mark.parametrize(
    "choices", [["C", "C++", "C#"], ["-1", "1"], ["+", "-"], ["की", "का"], ["yes", "no"], ["3.5", "35"], ["x²", "x2"]]
)
def test_choices_that_can_be_told_apart(choices):
    assert equal_choices(choices) is None


@pytest.mark.parametrize(
    "choices", [["yes", "yes"], ["Yes", "yes"], ["a", "b", "a."], ["x y", " x  y"], ["é", "e\u0301"], ["no", "?"]]
)
def test_choices_that_differ_in_case_blanks_and_punctuation_only(choices):
    first, second = equal_choices(choices)
    assert {first, second} <= {*choices, ""} and second == choices[-1]


def test_more_choices_than_letters():
    require_letters("here", ["a"] * 26)
    assert letters(["a"] * 26)[-1] == "Z"
    with pytest.raises(ColpipeError, match="here: has 27 choices; there are 26 letters"):
        require_letters("here", ["a"] * 27)
