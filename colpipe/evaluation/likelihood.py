"""Scores by log-likelihood, for which nothing is generated: is the right choice the most probable one, is the last word, how
many bits does a right answer cost? The log-likelihoods are lm-eval's."""

import logging
from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.config.constants import LIKELIHOOD_ROWS
from colpipe.data.encoding import begin_id, begun, encode
from colpipe.errors import ColpipeError
from colpipe.evaluation.scores import Values, right_choice
from colpipe.hf.finite import require_finite
from colpipe.hf.logits import require_transform, transform_of

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns that the model is there already

LEAST = 16  # rows of a product: of fewer, MKL adds up in another order

LOOKS = 2**26  # pairs of tokens of a batch that has a mask of its own, a byte each
TIE = 1e-3  # nats: two choices that are nearer are compared anew; rounding in another order is a hundredth of it

Request = tuple[tuple[str, str], list[int], list[int]]  # texts, context's token ids, continuation's


class _Row(NamedTuple):
    """What a model reads at a time: a context and the continuations of several requests, each as if it followed alone."""

    ids: list[int]
    positions: list[int]
    parts: list[int]
    """of each token: 0 is the context, which all others see"""
    ends: list[tuple[int, list[int]]]
    """requests, and the places that predict the tokens of their continuations"""


def _rows_of(requests: Sequence[Request], longest: int, packed: bool) -> list[_Row]:
    """Rows for all requests, longest first. Those that have all but their last token in common share a row; where they are
    `packed`, all with the same context do, unless they are cut on the left to what a model can read."""
    rows: dict[tuple, _Row] = {}
    for number, (_, context, continuation) in enumerate(requests):
        read = (context + continuation)[-(longest + 1) :][:-1]
        own = continuation[:-1] if packed and len(read) < longest else []
        start = read[: len(read) - len(own)]
        row = rows.setdefault((bool(own or start == context), *start), _Row([*start], [*range(len(start))], [], []))
        row.parts.extend([0] * (len(row.ids) - len(row.parts)))
        first = len(start) - (len(continuation) - len(own))
        places = [*range(first, len(start)), *range(len(row.ids), len(row.ids) + len(own))]
        row.ends.append((number, places))
        row.ids.extend(own)
        row.positions.extend(range(len(start), len(start) + len(own)))
        row.parts.extend([len(row.ends)] * len(own))
    return sorted(rows.values(), key=lambda row: (-len(row.ids), row.ids))


class _Scorer(HFLM):
    """lm-eval's scorer, which makes logits of whole texts, with those of continuations only.

    Attributes:
        packed: whether choices with the same context are read with it at once; the last bits differ then.
        begin: id that every row begins with, where the tokenizer puts one before a text.
    """

    packed = False
    begin: int | None = None

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, *_, **__) -> list[int]:
        """As lm-eval does it with `add_bos_token`, or without; no end-of-text is put behind a context, and what looks like a
        special token is text."""
        [ids] = encode(self.tokenizer, [string])
        return ids if add_special_tokens is False else begun(string, ids, self.begin)

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        requests = [self._within(request) for request in requests]
        if transform_of(self.model) is None:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        rows = _rows_of(requests, self.max_length, self.packed)
        found = [(0.0, False)] * len(requests)
        while rows:
            count = min(self.batch_size, max(1, LOOKS // len(rows[0].ids) ** 2)) if self.packed else self.batch_size
            batch, rows = rows[:count], rows[count:]
            ends = [(number, row, places) for row, each in enumerate(batch) for number, places in each.ends]
            tokens = [token for number, _, _ in ends for token in requests[number][2]]
            logs, is_best = self._logs(batch, [(row, place) for _, row, places in ends for place in places], tokens)
            lengths = [len(places) for _, _, places in ends]
            parts = zip(ends, logs.split(lengths), is_best.split(lengths), strict=True)
            for (number, _, _), log, best in parts:
                found[number] = float(log.sum()), bool(best.all())
        return found

    def _within(self, request: Request) -> Request:
        """A request whose context is cut to what the model can read, behind its begin token: lm-eval would cut that away."""
        texts, context, continuation = request
        over = len(context) + len(continuation) - (self.max_length + 1)
        if self.begin is None or over <= 0:
            return request
        return texts, [self.begin, *context[1 + over :]], continuation

    @torch.no_grad()
    def _logs(self, batch: list[_Row], places: list[tuple[int, int]], tokens: list[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N,) of tokens (N,) at places (row, column), and whether they are the most probable ones."""
        given = {"input_ids": self._padded([row.ids for row in batch], 0)}
        if self.packed:
            parts = self._padded([row.parts for row in batch], -1)
            seen = (parts[:, None, :] == 0) | (parts[:, None, :] == parts[:, :, None])
            given["attention_mask"] = seen.tril()[:, None]
            given["position_ids"] = self._padded([row.positions for row in batch], 0)
        hidden = self.model.base_model(**given, use_cache=False).last_hidden_state
        rows, columns = torch.tensor(places + places[:1] * (LEAST - len(places)), device=self.device).T
        values = self.model.get_output_embeddings()(hidden[rows, columns])[: len(places)]
        logs = require_transform(self.model).apply(values).float().log_softmax(-1)
        right = torch.tensor(tokens, device=self.device)
        return logs.gather(-1, right[:, None])[:, 0], logs.argmax(-1) == right

    def _padded(self, rows: list[list[int]], fill: int) -> Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill).to(self.device)


def _can_pack(model: PreTrainedModel) -> bool:
    """Whether all layers look at all that a mask lets them see."""
    config = model.config
    full = {*(getattr(config, "layer_types", None) or ())} <= {"full_attention"}
    return full and getattr(config, "sliding_window", None) is None and config._attn_implementation == "sdpa"


def likelihood_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict], batch_size: int = LIKELIHOOD_ROWS
) -> Values:
    """All that log-likelihoods say of a task, row by row.

    Args:
        rows: with choices as `choice_scores` takes them, or all without: a context and the continuation that is right.

    Returns:
        With choices what `choice_scores` gives; without, `last_word`, 1 where every token of the continuation is the most
        probable one (lm-eval's acc of LAMBADA). For both `answer_bits_per_byte`, -log2 p(right continuation | context)
        over the continuation's bytes in UTF-8, its blank included.

    Raises:
        ColpipeError: a row has no texts to compare, or some have choices and some have none.
    """
    for row in rows:
        if not row.get("likelihood"):
            raise ColpipeError(f"row {row.get('id')}: has no texts whose likelihood to compare; set likelihood: false")
    if len({"choices" in row for row in rows}) > 1:
        raise ColpipeError("rows with and without choices have no likelihood in common; keep one sort of them (kinds)")
    scorer = _scorer(model, tokenizer, batch_size)
    if "choices" in rows[0]:
        logs = _logs_of_choices(scorer, rows)
        places = [row["choices"].index(right_choice(row)) for row in rows]
        found, rights = _right_ones(rows, logs), [own[place] for own, place in zip(logs, places, strict=True)]
    else:
        answers, places = _answered(scorer, rows), [0] * len(rows)
        found, rights = {"last_word": [float(best) for _, best in answers]}, [log for log, _ in answers]
    texts = [row["likelihood"]["continuations"][place] for row, place in zip(rows, places, strict=True)]
    bits = [float(-log / np.log(2) / len(text.encode())) for log, text in zip(rights, texts, strict=True)]
    return {**found, "answer_bits_per_byte": bits}


def choice_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict], batch_size: int = LIKELIHOOD_ROWS
) -> Values:
    """Row by row, 1 where the right choice wins: `likelihood` by log p(continuation | context), `likelihood_normalised` by
    that divided by the choice's length in characters (lm-eval's acc and acc_norm).

    Args:
        rows: with `choices`, the right one as `output`, and `likelihood`: contexts and continuations, one for each choice.
    """
    return _right_ones(rows, _logs_of_choices(_scorer(model, tokenizer, batch_size), rows))


def _scorer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> _Scorer:
    begin, longest = begin_id(tokenizer), model.config.max_position_embeddings
    scorer = _Scorer(
        pretrained=model, tokenizer=copy(tokenizer), batch_size=batch_size, max_length=longest, prefix_token_id=begin
    )
    scorer.begin = begin
    # The choices of a row share their context.
    scorer.tok_encode = cache(scorer.tok_encode)  # type: ignore[method-assign]
    return scorer


def _logs_of_choices(scorer: _Scorer, rows: Sequence[dict]) -> list[np.ndarray]:
    """Log-likelihoods of each row's choices (C,), read together where rounding does not decide which of them wins."""
    scorer.packed = _can_pack(scorer.model)
    logs = _log_likelihoods(scorer, rows)
    if scorer.packed and (near := [number for number, row in enumerate(rows) if _is_near(row, logs[number])]):
        scorer.packed = False
        for number, anew in zip(near, _log_likelihoods(scorer, [rows[number] for number in near]), strict=True):
            logs[number] = anew
    return logs


def _right_ones(rows: Sequence[dict], logs: Sequence[np.ndarray]) -> Values:
    """1 where the right choice of a row wins, by either measure."""
    found: Values = {"likelihood": [], "likelihood_normalised": []}
    for row, own in zip(rows, logs, strict=True):
        right = row["choices"].index(right_choice(row))
        found["likelihood"].append(float(own.argmax() == right))
        found["likelihood_normalised"].append(float((own / _lengths(row)).argmax() == right))
    return found


def _log_likelihoods(scorer: _Scorer, rows: Sequence[dict]) -> list[np.ndarray]:
    """Of each row's choices (C,)."""
    logs = iter(_answered(scorer, rows))
    return [np.array([next(logs)[0] for _ in row["choices"]]) for row in rows]


def _answered(scorer: _Scorer, rows: Sequence[dict]) -> list[tuple[float, bool]]:
    """Of each continuation of all rows its log-likelihood, and whether all of its tokens are the most probable ones.

    Raises:
        ColpipeError: a log-likelihood is not finite.
    """
    pairs = [
        pair
        for row in rows
        for pair in zip(row["likelihood"]["contexts"], row["likelihood"]["continuations"], strict=True)
    ]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    found = scorer.loglikelihood(requests, disable_tqdm=True)
    require_finite(torch.tensor([log for log, _ in found]), scorer.model, "its log-likelihood of a choice")
    return found


def _lengths(row: dict) -> np.ndarray:
    """Of each choice (C,), characters."""
    return np.array([len(text.removeprefix(" ")) for text in row["likelihood"]["continuations"]])


def _is_near(row: dict, logs: np.ndarray) -> bool:
    """Whether rounding might decide which choice of a row wins, by either measure."""
    lengths, tie = _lengths(row), TIE * max(1.0, np.abs(logs).max() / 100)
    gaps = [np.diff(np.sort(values)[-2:]) for values in (logs, logs / lengths)]
    return bool((gaps[0] < tie).any() or (gaps[1] < tie / lengths.min()).any())
