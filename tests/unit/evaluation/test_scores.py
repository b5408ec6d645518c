import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import norm
from sklearn.metrics import accuracy_score

from colpipe.errors import ColpipeError
from colpipe.evaluation.scores import (
    averaged,
    deviations,
    guessing,
    interval,
    percent,
    percent_intervals,
    rouge_l,
    score_rows,
)

WORDS = "a river rivers in the long longest of spain was known for stones and boats"
WORDS = WORDS.split()


def sentences(count: int, seed: int) -> list[str]:
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, chance.integers(1, 9))) for _ in range(count)]


def longest_common(a: list[str], b: list[str]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_bits_per_byte_are_no_percentage():
    values = {"last_word": [1.0, 0.0], "answer_bits_per_byte": [1.5, 1.5]}
    assert percent(values) == {"last_word": 50.0, "answer_bits_per_byte": 1.5}
    assert percent_intervals(values) == {"last_word": (0.0, 100.0), "answer_bits_per_byte": (1.5, 1.5)}


def test_rouge_l_is_the_papers_formula():
    answers, references = ["a river in spain", "no"], ["the long river in spain", "a tree"]
    expected = []
    for answer, reference in zip(answers, references, strict=True):
        common = longest_common(answer.split(), reference.split())
        precision, recall = common / len(answer.split()), common / len(reference.split())
        expected.append(2 * precision * recall / (precision + recall) if common else 0.0)
    assert rouge_l(answers, [[reference] for reference in references]) == pytest.approx(expected)


def test_rouge_l_equals_rouge_score_on_all_rows_and_takes_the_best_reference():
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    answers, first, second = (sentences(300, seed) for seed in range(3))
    single = [scorer.score(right, answer)["rougeL"].fmeasure for right, answer in zip(first, answers, strict=True)]
    other = [scorer.score(right, answer)["rougeL"].fmeasure for right, answer in zip(second, answers, strict=True)]
    assert rouge_l(answers, [[right] for right in first]) == single
    assert rouge_l(answers, list(zip(first, second, strict=True))) == [
        max(pair) for pair in zip(single, other, strict=True)
    ]


def test_rouge_l_of_ascii_is_rouge_scores_own():
    """Punctuation, digits, underscores and control characters among the words."""
    scorer, chance = RougeScorer(["rougeL"], use_stemmer=True), np.random.default_rng(0)
    letters = [chr(code) for code in range(128)] + list("aeiostrn   ") * 8
    texts = ["".join(chance.choice(letters, chance.integers(0, 60))) for _ in range(400)]
    texts += [" ".join(chance.choice(WORDS, 4)) + text for text in texts]
    pairs = list(zip(texts, texts[1:] + texts[:1], strict=True))
    expected = [scorer.score(right, answer)["rougeL"].fmeasure for answer, right in pairs]
    assert rouge_l([answer for answer, _ in pairs], [[right] for _, right in pairs]) == expected
    assert 0 < sum(map(bool, expected)) < len(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("Привет мир", "привет, мир!", 1),
        ("สวัสดีครับ", "สวัสดีครับ", 1),
        ("你好", "你们好", 0.8),  # two of two, two of three characters
        ("नमस्ते दुनिया", "नमस्ते भारत", 0.5),
        ("the “running” cats", "the cat runs", 2 / 3),  # quotes are no letters; stems as ever
        ("café", "café", 1),
        ("café", "cafe", 0),
    ],
)
def test_rouge_l_of_any_script(answer, reference, score):
    assert rouge_l([answer], [[reference]]) == [pytest.approx(score)]


@pytest.mark.parametrize(
    ("choices", "output"),
    [(["C", "C++", "C#"], "C#"), (["-1", "1"], "-1"), (["+", "-"], "-"), (["की", "का"], "का"), (["yes", "no"], "Yes")],
)
def test_a_right_answer_letter_for_letter_is_right(choices, output):
    rows = [{"output": output, "choices": order} for order in (choices, choices[::-1])]
    found = score_rows([output, output], rows)
    assert (found["accuracy"], found["unparsable"]) == ([1, 1], [0, 0])


def test_an_answer_that_fits_several_choices_is_unparsable():
    found = score_rows(["C.", "well known!"], [
        {"output": "C", "choices": ["C", "D"]}, {"output": "well-known", "choices": ["well-known", "well, known"]}
    ])  # fmt: skip
    assert (found["accuracy"], found["unparsable"]) == ([1, 0], [0, 1])


def test_a_right_answer_that_is_no_choice_is_refused():
    with pytest.raises(ColpipeError, match=r"row 7: its answer 'maybe' is none of its choices \['yes', 'no'\]"):
        score_rows(["yes"], [{"id": "7", "output": "maybe", "choices": ["yes", "no"]}])


def test_accuracy_is_sklearns_and_what_cannot_be_parsed_is_counted():
    chance = np.random.default_rng(0)
    right, given = chance.choice(["yes", "no"], 200), chance.choice(["yes", "No!", "perhaps"], 200)
    rows = [{"output": str(answer), "choices": ["yes", "no"]} for answer in right]
    metrics = percent(score_rows([str(answer) for answer in given], rows))
    plain = np.char.rstrip(np.char.lower(given), "!")
    assert metrics["accuracy"] == pytest.approx(100 * accuracy_score(right, plain))
    assert metrics["unparsable"] == pytest.approx(100 * (plain == "perhaps").mean())
    assert set(score_rows(["a"], [{"output": "a"}])) == {"rouge_l"}


def test_samples_are_averaged_row_by_row():
    samples = [{"m": [0.0, 1.0]}, {"m": [1.0, 1.0]}]
    assert averaged(samples) == {"m": [0.5, 1.0]}
    assert deviations(samples) == {"m_deviation": pytest.approx(np.std([50, 100], ddof=1))}
    assert deviations(samples[:1]) == {}


def test_an_interval_is_that_of_the_mean():
    right = np.random.default_rng(0).random(400) < 0.3
    low, high = interval(right.astype(float))
    half = norm.ppf(0.975) * right.std() / len(right) ** 0.5  # what it tends to with many rows
    assert (low, high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.01)
    assert (low, high) == interval(right.astype(float))
    assert interval([0.25, 0.25]) == (0.25, 0.25)
    assert interval([1.0]) is None and percent_intervals({"accuracy": [1.0]}) == {}


def test_guessing():
    train = [{"output": answer} for answer in ("no", "yes", "yes")]
    test = [{"output": answer, "choices": ["yes", "no"]} for answer in ("yes", "no", "no", "no")]
    found = {init: percent(values) for init, values in guessing(train, test).items()}
    assert found["majority"]["accuracy"] == 25
    assert found["chance"]["accuracy"] == 50
    assert set(guessing([], test)) == {"chance"}
