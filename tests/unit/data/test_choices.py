"""Which choice an answer is: letter for letter first, leniently where that is unambiguous, never the first of several."""

import pytest

from colpipe.data.choices import choice_of, equal_choices, letters, parse_choice, require_letters
from colpipe.data.writing import words
from colpipe.errors import ColpipeError

LANGUAGES = ["C", "C++", "C#"]
CASES = [  # choices, answer, what it is
    (["yes", "no"], "Yes.", "yes"),
    (["yes", "no"], "no, it is not", "no"),
    (["yes", "no"], "NO", "no"),
    (["yes", "no"], "Nobody knows", None),
    (["yes", "no"], "not at all", None),
    (["yes", "no"], "", None),
    (["yes", "no"], "!", None),
    (["new york", "new york city"], "New York, City", "new york city"),
    (LANGUAGES, "C++ is", "C++"),
    (LANGUAGES, "c#.", "C#"),
    (LANGUAGES, "**C++**", "C++"),
    (LANGUAGES, "(C)", "C"),
    (LANGUAGES, "Cobol", None),
    (["-1", "1"], "−1", "-1"),
    (["-1", "1"], "1 degree", "1"),
    (["-1", "2"], "1", None),
    (["3", "4"], "3.5", None),
    (["3", "4"], "3.", "3"),
    (["+", "-"], "+ because", "+"),
    (["+", "-"], "plus", None),
    (["a", "A"], "A)", "A"),
    (["well-known", "well known"], "Well, known", None),  # the words of both
    (["well-known", "well known"], "well-known to all", "well-known"),
    (["A", "B"], "Ｂ.", "B"),
    (["की", "का"], "का।", "का"),
    (["да", "нет"], "Да, конечно", "да"),
    (["是", "不是"], "不是。", "不是"),
    (["ใช่", "ไม่ใช่"], "ใช่ครับ", "ใช่"),
    (["café", "cafés"], "cafe\N{COMBINING ACUTE ACCENT}", "café"),
    (["👍", "👎"], "👎", "👎"),
    (["iyi", "kötü"], "İyi", "iyi"),
    (["istanbul", "ankara"], "İstanbul'da", "istanbul"),
    (["1", "2"], "½", None),
    (["1", "2"], "1/2", None),
    (["1", "2"], "1½", None),
    (["3", "4"], "3/4", None),
    (["3", "4"], "3.5km", None),
    (["0.5", "5"], ".5", "0.5"),
    (["-5", "5"], "–5", "-5"),
    (["-5", "5"], "‑5", "-5"),
    (["-5", "5"], "—5", "-5"),
    (["-5", "5"], "- 5", "-5"),
    (["-5", "5"], "-5是", "-5"),
    (["22", "4"], "2² = 4", None),
    (["105", "100000"], "10⁵ m", None),
    (["102", "100"], "10² is 100", None),
    (["1000", "1"], "1 000", "1000"),
    (["1000", "1"], "1\N{NARROW NO-BREAK SPACE}000", "1000"),
    (["1000", "1"], "1'000 m", "1000"),
    (["1000", "1"], "1_000", "1000"),
    (["510", "5"], "5'10", None),
    (["5", "1"], "5 ± 1", None),
    (["5", "6"], "5~6", None),
    (["4", "2"], "√4", None),
    (["10%", "10"], "10 %", "10%"),
    (["10%", "10"], "10 of them", "10"),
    (LANGUAGES, "C ++", "C++"),
    (["5", "10"], "5:30", None),
    (["5", "10"], "5: because", "5"),
    (["3", "4"], "3×10", None),
    (["5", "6"], "5-6", None),
    (["5", "6"], "5 – 6", None),
    (["5", "6"], "5 - it is", "5"),
]


@pytest.mark.parametrize(("choices", "answer", "choice"), CASES)
def test_parse_choice(choices, answer, choice):
    assert parse_choice(answer, choices) == choice


@pytest.mark.parametrize("choices", [LANGUAGES, *(choices for choices, *_ in CASES)], ids=str)
def test_every_choice_answered_letter_for_letter_is_that_choice(choices):
    for order in (choices, choices[::-1]):
        assert [parse_choice(f" {choice}\n", order) for choice in choices] == choices


def test_an_output_is_a_choice_but_for_its_case():
    assert choice_of("Yes", ["yes", "no"]) == "yes"
    assert choice_of("A", ["a", "A"]) == "A"
    assert choice_of("maybe", ["yes", "no"]) is None
    assert choice_of("YES", ["Yes", "yes"]) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The river's 2 banks", ["the", "river", "s", "2", "banks"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("Привет, мир", ["привет", "мир"]),
        ("你好，世界 2", ["你", "好", "世", "界", "2"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("안녕 세계", ["안녕", "세계"]),
        ("10⁵", ["10⁵"]),
        ("½ H₂O", ["½", "h2o"]),
        ("2² é", ["2²", "é"]),
        ("İyi", ["iyi"]),
    ],
)
def test_words_of_any_script(text, found):
    assert words(text) == found


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
