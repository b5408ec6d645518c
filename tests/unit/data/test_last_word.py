"""Which last words can be guessed, by hand."""

import pytest

from colpipe.data.last_word import guessable_last_word

THIRTY = " ".join(f"w{n}" for n in range(27)) + " oak tree tree"  # words
LATER = "It fell. Nobody saw the tree. More."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{THIRTY} and a tree.", (f"{THIRTY} and a", "tree")),
        (f"{THIRTY} tree!", (THIRTY, "tree")),
        (f"{THIRTY[3:]} tree.", None),  # 29 words before it
        (f"{THIRTY} and a Tree.", None),  # other letters
        (f"{THIRTY} and a treetree.", None),
        (f"{THIRTY} and an oak.", None),  # three letters
        (f"{THIRTY} and a w10w.", None),  # not letters only
        (f"{THIRTY} and a  tree.", None),  # no single space before it
        (f"{THIRTY} and a\ntree.", None),
        (f"{THIRTY} a tree.com", None),  # no end
        (f"{THIRTY} trees. {LATER}", (f"{THIRTY} trees. It fell. Nobody saw the", "tree")),
        (f"Tree. {THIRTY} stand. {LATER}", (f"Tree. {THIRTY} stand. It fell. Nobody saw the", "tree")),
        (f"{THIRTY} à l’été bâtard bâtard?", (f"{THIRTY} à l’été bâtard", "bâtard")),
        ("", None),
    ],
)
def test_the_first_sentence_with_a_last_word_that_was_there_before(text, expected):
    assert guessable_last_word(text) == expected
