"""Which losses are those of broken models: ln 512 = 6.238."""

import pytest

from colpipe.evaluation.remark import worse_than_guessing
from colpipe.evaluation.uniform import is_broken


@pytest.mark.parametrize(("loss", "ancestor", "tokens", "broken"), [
    (6.242, "a", 0, False),  # rounding
    (6.25, "a", 0, True),
    (6.25, "", 0, False),  # random weights, as they should be
    (6.25, "", 512, True),
    (6.25, "", None, True),  # an ancestor
    (6.25, "a", None, True),
])  # fmt: skip
def test_worse_than_a_uniform_guess_is_broken_unless_nothing_was_learnt_yet(loss, ancestor, tokens, broken):
    assert is_broken(loss, 512, ancestor, tokens) == broken


def test_a_log_says_it_in_words():
    assert worse_than_guessing(6.25, 512) == "worse than guessing: a uniform guess has 6.24 (ln 512)"
    assert worse_than_guessing(6.24, 512) == ""
