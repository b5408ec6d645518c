"""Scores of generated answers (Appendix C.2), and what guessing would score."""

import re
from collections import Counter

from rouge_score.rouge_scorer import RougeScorer


def rouge_l(answers: list[str], references: list[str]) -> float:
    """Mean Rouge-L F-measure with stemming, in percent (Eq. 8 with β = 1)."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = [
        scorer.score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]
    return 100 * sum(scores) / len(scores)


def parse_choice(answer: str, choices: list[str]) -> str | None:
    """The choice that an answer opens with, ignoring case and punctuation; None where it opens with none of them."""
    words = re.findall(r"\w+", answer.lower())
    for choice in sorted(choices, key=len, reverse=True):
        wanted = re.findall(r"\w+", choice.lower())
        if words[: len(wanted)] == wanted:
            return choice
    return None


def score(answers: list[str], rows: list[dict]) -> dict[str, float]:
    """Metrics of one task, in percent: `rouge_l`, and where rows have choices `accuracy` (Eq. 9) and `unparsable`."""
    references = [row["completion"] for row in rows]
    metrics = {"rouge_l": rouge_l(answers, references)}
    if all("choices" in row for row in rows):
        parsed = [parse_choice(answer, row["choices"]) for answer, row in zip(answers, rows, strict=True)]
        right = sum(choice == reference for choice, reference in zip(parsed, references, strict=True))
        metrics["accuracy"] = 100 * right / len(rows)
        metrics["unparsable"] = 100 * parsed.count(None) / len(rows)
    return metrics


def guessing(train: list[dict], test: list[dict]) -> dict[str, dict[str, float]]:
    """What a task scores without reading the question.

    `majority` always gives the most frequent training answer; `chance` picks one of the choices at random (expected
    value), for tasks that have them.
    """
    common = Counter(row["completion"] for row in train).most_common(1)[0][0]
    found = {"majority": score([common] * len(test), test)}
    if all("choices" in row for row in test):
        expected = 100 * sum(1 / len(row["choices"]) for row in test) / len(test)
        found["chance"] = {"accuracy": expected, "unparsable": 0.0}
    return found
