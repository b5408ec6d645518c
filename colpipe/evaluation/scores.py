"""Scores of generated answers (Appendix C.2), their intervals, and what guessing would score."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer, Tokenizer
from scipy.stats import bootstrap

from colpipe.data.choices import choice_of, parse_choice
from colpipe.data.writing import words
from colpipe.errors import ColpipeError

RESAMPLES = 1000
BITS = "answer_bits_per_byte"  # no share of rows, and lower is better
LIKELIHOODS = (
    "likelihood",
    "likelihood_normalised",
    "last_word",
    BITS,
)  # of the weights as they are, without generating
Values = dict[str, list[float]]  # metric → a value per row


class WordsOfAnyScript(Tokenizer):
    """For rouge-score, whose own tokenizer keeps a to z and digits alone; of text in ASCII, what that gives."""

    def __init__(self) -> None:
        self.stemmed = DefaultTokenizer(use_stemmer=True).tokenize

    def tokenize(self, text: str) -> list[str]:
        """Words, those of a to z and digits stemmed."""
        if text.isascii():
            return self.stemmed(text)
        return list(chain.from_iterable(self.stemmed(word) if word.isascii() else [word] for word in words(text)))


def rouge_l(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Rouge-L F-measure of each answer with stemming (Eq. 8 with β = 1), the best over its references."""
    scorer = RougeScorer(["rougeL"], tokenizer=WordsOfAnyScript())
    return [
        scorer.score_multi(list(right), answer)["rougeL"].fmeasure
        for answer, right in zip(answers, references, strict=True)
    ]


def score_rows(answers: Sequence[str], rows: Sequence[dict]) -> Values:
    """Metrics of one task row by row: `rouge_l`, and where rows have choices `accuracy` (Eq. 9) and `unparsable`.

    Raises:
        ColpipeError: the right answer of a row is none of its choices.
    """
    metrics = {"rouge_l": rouge_l(answers, [row.get("references", [row["output"]]) for row in rows])}
    if all("choices" in row for row in rows):
        parsed = [parse_choice(answer, row["choices"]) for answer, row in zip(answers, rows, strict=True)]
        metrics["accuracy"] = [float(choice == right_choice(row)) for choice, row in zip(parsed, rows, strict=True)]
        metrics["unparsable"] = [float(choice is None) for choice in parsed]
    return metrics


def right_choice(row: Mapping) -> str:
    """The choice that is right, as it stands among the choices.

    Raises:
        ColpipeError: none is.
    """
    right = choice_of(row["output"], row["choices"])
    if right is None:
        raise ColpipeError(f"row {row.get('id')}: its answer {row['output']!r} is none of its choices {row['choices']}")
    return right


def averaged(samples: Sequence[Values]) -> Values:
    """Row by row the mean over several samples of answers."""
    return {metric: np.mean([sample[metric] for sample in samples], 0).tolist() for metric in samples[0]}


def deviations(samples: Sequence[Values]) -> dict[str, float]:
    """`<metric>_deviation`: sample standard deviation of the means of several samples of answers, in percent."""
    means = [percent(sample) for sample in samples]
    if len(means) < 2:
        return {}
    return {f"{metric}_deviation": float(np.std([mean[metric] for mean in means], ddof=1)) for metric in means[0]}


def percent(values: Values) -> dict[str, float]:
    """The mean of each metric, in percent but for bits per byte."""
    return {metric: _unit(metric) * sum(column) / len(column) for metric, column in values.items()}


def _unit(metric: str) -> int:
    return 1 if metric == BITS else 100


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Ends of the 95 % interval of the mean over rows: percentile bootstrap, the same each time. None of one row, which
    says nothing of how much others differ."""
    column = np.asarray(values)
    if len(column) < 2:
        return None
    if (column == column[0]).all():
        return float(column.mean()), float(column.mean())
    found = bootstrap((column,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def percent_intervals(values: Values) -> dict[str, tuple[float, float]]:
    """Ends of the 95 % interval of each metric's mean, where it has one, in the units of `percent`."""
    ends = {metric: interval(column) for metric, column in values.items()}
    return {metric: (_unit(metric) * both[0], _unit(metric) * both[1]) for metric, both in ends.items() if both}


def guessing(train: Sequence[dict], test: Sequence[dict]) -> dict[str, Values]:
    """What a task scores without reading the question, row by row.

    `majority` always gives the most frequent training answer; `chance` picks one of the choices at random (expected
    value), for tasks that have them.
    """
    found = {}
    if train:
        common = Counter(row["output"] for row in train).most_common(1)[0][0]
        found["majority"] = score_rows([common] * len(test), test)
    if all("choices" in row for row in test):
        found["chance"] = {"accuracy": [1 / len(row["choices"]) for row in test], "unparsable": [0.0] * len(test)}
    return found
