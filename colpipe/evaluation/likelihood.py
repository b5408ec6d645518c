"""Accuracy by log-likelihood: is the right choice the most probable one? The log-likelihoods are lm-eval's."""

import logging
from collections.abc import Sequence
from copy import copy
from functools import cache

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.architectures.families import FAMILIES
from colpipe.config.constants import LIKELIHOOD_ROWS
from colpipe.evaluation.scores import right_choice
from colpipe.hf.finite import require_finite

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns that the model is there already

LEAST = 16  # rows of a product: of fewer, MKL adds up in another order

Request = tuple[tuple[str, str], list[int], list[int]]  # texts, context's token ids, continuation's


class _Scorer(HFLM):
    """lm-eval's scorer, which makes logits of whole texts, with those of continuations only. What requests have in common up
    to their last token is read once, as there."""

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if self.model.config.model_type not in FAMILIES:  # others may scale or cap what their head gives
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        readers: dict[tuple[int, ...], list[int]] = {}  # what the model reads → which requests do
        for number, (_, context, continuation) in enumerate(requests):
            read = (context + continuation)[-(self.max_length + 1) :][:-1]
            readers.setdefault(tuple(read), []).append(number)
        order = sorted(readers, key=lambda read: (-len(read), read))
        found = [(0.0, False)] * len(requests)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            owners = [(row, number) for row, read in enumerate(batch) for number in readers[read]]
            logs = self._logs(batch, [(row, requests[number][2]) for row, number in owners])
            for (_, number), (log, is_best) in zip(owners, logs, strict=True):
                found[number] = float(log.sum()), bool(is_best.all())
        return found

    def _logs(self, batch: list[tuple[int, ...]], ends: list[tuple[int, list[int]]]) -> list[tuple]:
        """Of each (row, continuation), whose last token follows the row's: log-probabilities of its tokens, and whether they
        are the most probable ones."""
        ids = pad_sequence([torch.tensor(read) for read in batch], batch_first=True).to(self.device)
        with torch.no_grad():
            hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            places = [(row, len(batch[row]) - len(end) + k) for row, end in ends for k in range(len(end))]
            rows, columns = torch.tensor(places + places[:1] * (LEAST - len(places)), device=self.device).T
            logs = self.model.get_output_embeddings()(hidden[rows, columns])[: len(places)].log_softmax(-1)
        tokens = torch.tensor([token for _, end in ends for token in end], device=self.device)
        own, best = logs.gather(-1, tokens[:, None])[:, 0], logs.argmax(-1) == tokens
        lengths = [len(end) for _, end in ends]
        return list(zip(own.split(lengths), best.split(lengths), strict=True))


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
    tokenizer = copy(tokenizer)
    tokenizer.split_special_tokens = True  # what looks like a special token in a row is text
    scorer = _Scorer(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=longest)
    scorer.tok_encode = cache(scorer.tok_encode)  # the choices of a row share their context
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
