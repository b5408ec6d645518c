import pytest
from rouge_score.rouge_scorer import RougeScorer

from colpipe.evaluation.scores import guessing, parse_choice, rouge_l, score


def longest_common(a: list[str], b: list[str]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_rouge_l_is_the_papers_formula():
    answers, references = ["a river in spain", "no"], ["the long river in spain", "a tree"]
    expected = 0.0
    for answer, reference in zip(answers, references, strict=True):
        common = longest_common(answer.split(), reference.split())
        precision, recall = common / len(answer.split()), common / len(reference.split())
        expected += 2 * precision * recall / (precision + recall) if common else 0.0
    assert rouge_l(answers, references) == pytest.approx(100 * expected / 2)
    stemmed = RougeScorer(["rougeL"], use_stemmer=True).score("rivers", "river")["rougeL"].fmeasure
    assert rouge_l(["river"], ["rivers"]) == 100 * stemmed == 100


@pytest.mark.parametrize(
    ("answer", "choice"),
    [("Yes.", "yes"), ("no, it is not", "no"), ("Nobody knows", None), ("", None), ("not at all", None), ("NO", "no")],
)
def test_parse_choice(answer, choice):
    assert parse_choice(answer, ["yes", "no"]) == choice


def test_the_longer_choice_wins():
    assert parse_choice("New York City", ["new york", "new york city"]) == "new york city"


def test_score_counts_what_cannot_be_parsed():
    rows = [{"completion": answer, "choices": ["yes", "no"]} for answer in ("yes", "no", "no", "yes")]
    metrics = score(["yes", "yes", "No!", "perhaps"], rows)
    assert (metrics["accuracy"], metrics["unparsable"]) == (50, 25)
    assert set(score(["a"], [{"completion": "a"}])) == {"rouge_l"}


def test_guessing():
    train = [{"completion": answer} for answer in ("no", "yes", "yes")]
    test = [{"completion": answer, "choices": ["yes", "no"]} for answer in ("yes", "no", "no", "no")]
    found = guessing(train, test)
    assert found["majority"]["accuracy"] == 25
    assert found["chance"]["accuracy"] == 50
