"""Accuracy by log-likelihood: is the right choice the most probable one? The log-likelihoods are lm-eval's."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.config.constants import LIKELIHOOD_ROWS
from colpipe.evaluation.scores import right_choice
from colpipe.hf.finite import require_finite

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns that the model is there already


def choice_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict], batch_size: int = LIKELIHOOD_ROWS
) -> dict[str, list[float]]:
    """Row by row, 1 where the right choice wins: `likelihood` by log p(continuation | context), `likelihood_normalised` by
    that divided by the choice's length in characters (lm-eval's acc and acc_norm).

    Args:
        rows: with `choices`, the right one as `output`, and `likelihood`: contexts and continuations, one for each choice.
    """
    pairs = [
        pair
        for row in rows
        for pair in zip(row["likelihood"]["contexts"], row["likelihood"]["continuations"], strict=True)
    ]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    longest = model.config.max_position_embeddings
    scorer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=longest)
    found_logs = [log for log, _ in scorer.loglikelihood(requests, disable_tqdm=True)]
    require_finite(torch.tensor(found_logs), model, "its log-likelihood of a choice")
    logs = iter(found_logs)
    found: dict[str, list[float]] = {"likelihood": [], "likelihood_normalised": []}
    for row in rows:
        own = np.array([next(logs) for _ in row["choices"]])
        lengths = np.array([len(text.removeprefix(" ")) for text in row["likelihood"]["continuations"]])
        right = row["choices"].index(right_choice(row))
        found["likelihood"].append(float(own.argmax() == right))
        found["likelihood_normalised"].append(float((own / lengths).argmax() == right))
    return found
