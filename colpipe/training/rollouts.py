"""Sampling from a mixture of models, and what the samples are worth (MiniLLM's scheme, Appendix C.1).

Rows of one batch are sampled together, each with random numbers of its own, drawn beforehand: which rows end early, and
leave the batch, changes no other row's numbers.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedModel

from colpipe.config.stages import Rollout
from colpipe.hf.finite import require_finite
from colpipe.jobs.device import float64
from colpipe.training.kv_cache import key_value_cache


@torch.inference_mode()
def sample(
    models: Mapping[str, PreTrainedModel],
    shares: Mapping[str, float],
    prompts: Sequence[Tensor],
    limits: Sequence[int],
    end_ids: Sequence[int],
    seed: int,
    preallocated: bool | None = None,
) -> list[dict[str, Tensor]]:
    """Completions y_t ~ p̃ = Σ share · model, at temperature 1, mixed token by token; each model keeps its own cache.

    Prompts are padded on the left; position ids count from each row's first token, which learnt positions (GPT-2) need.

    Args:
        models: by name, on one device; a longer vocabulary is cropped to the shortest.
        shares: name → weight in the mixture, together 1. A model without a share is not run.
        prompts: token ids of each row.
        limits: most new tokens of each row.
        end_ids: ends of text; one of them is the last token of a completion that has not reached its limit.
        seed: of this batch.
        preallocated: take memory for the keys and values of the longest completion at once; None: on an accelerator.

    Returns:
        Per row, on the CPU: `prompt`, `answer` (the completion, T,), `sampled`: log p̃ of its tokens (T,), and by the name
        of each model its own log-probabilities of them (T,).

    Raises:
        ColpipeError: a model's logits are not finite.
    """
    models = {name: model for name, model in models.items() if shares.get(name)}
    device = next(iter(models.values())).device
    vocabulary = min(model.get_output_embeddings().weight.shape[0] for model in models.values())
    uniforms = torch.rand(len(prompts), max(limits), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    length = max(map(len, prompts))
    ids = torch.stack([torch.cat([prompt.new_full((length - len(prompt),), end_ids[0]), prompt]) for prompt in prompts])
    mask = torch.stack([torch.arange(length) >= length - len(prompt) for prompt in prompts]).long()
    ids, mask = ids.to(device), mask.to(device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    max_new, ends = torch.tensor(limits, device=device), torch.tensor(end_ids, device=device)
    longest = length + max(limits)
    caches = {name: key_value_cache(model, longest, preallocated) for name, model in models.items()}
    totals: dict[str, list[Tensor]] = {name: [] for name in models}
    names = [*models, "sampled"]
    steps: list[tuple[Tensor, Tensor, Tensor]] = []  # rows, tokens, log-probabilities of each step
    rows = torch.arange(len(prompts), device=device)
    for step in range(max(limits)):
        logs: list[Tensor] = []
        mixed = torch.zeros((), device=device)
        for name, model in models.items():
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                past_key_values=caches[name],
                use_cache=True,
                logits_to_keep=1,
            ).logits
            logs.append(logits[:, -1, :vocabulary].float().log_softmax(-1))
            totals[name].append(logs[-1].logsumexp(-1))
            mixed = mixed + shares[name] * logs[-1].exp()
        # In float32 the sum over a large vocabulary is off by more than rare tokens have.
        cumulated = float64(mixed).cumsum(-1)
        uniforms = uniforms.to(cumulated.device)
        drawn = uniforms[rows.to(cumulated.device), step, None] * cumulated[:, -1:]
        token = torch.searchsorted(cumulated, drawn).clamp(max=vocabulary - 1).to(device)
        logprobs = [value.gather(1, token) for value in (*logs, mixed.log())]
        steps.append((rows, token[:, 0], torch.cat(logprobs, 1)))
        active = ~torch.isin(token[:, 0], ends) & (max_new[rows] > step + 1)
        kept = active.nonzero()[:, 0]  # an accelerator is waited for here, once a token
        if not len(kept):
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        ids, position = token, position[:, -1:] + 1
        if len(kept) < len(rows):
            rows, ids, mask, position = rows[kept], ids[kept], mask[kept], position[kept]
            for cache in caches.values():
                cache.batch_select_indices(kept)
    for name, model in models.items():  # not token by token, which would wait for an accelerator
        require_finite(torch.cat(totals[name]), model, "its logits for a completion")
    return _by_row(steps, names, prompts)


def _by_row(steps: list, names: list[str], prompts: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """From one entry per step to one per row."""
    rows, tokens, logs = (torch.cat(column).cpu() for column in zip(*steps, strict=True))
    order = rows.argsort(stable=True)
    counts = torch.bincount(rows, minlength=len(prompts)).tolist()
    parts = zip(prompts, tokens[order].split(counts), logs[order].split(counts), strict=True)
    return [
        {"prompt": prompt, "answer": answer, **dict(zip(names, log.unbind(1), strict=True))}
        for prompt, answer, log in parts
    ]


def rewards(sample: Mapping[str, Tensor], settings: Rollout) -> Tensor:
    """r_t = clip((log p − log q_old) / scale, ± limit), (T,)."""
    gained = (sample["teacher"].double() - sample["student"].double()) / settings.reward_scale
    return gained.clamp(-settings.reward_limit, settings.reward_limit)


def returns(reward: Tensor, settings: Rollout) -> Tensor:
    """G_t = Σ_{k>t} γ^(k−t) r_k, divided by the number of tokens from t to the end, (T,).

    The term k = t is left out: the loss has it as the exact divergence of each token. `count_own` puts it in as well, which
    is what MiniLLM's published code does.
    """
    total, found = reward.new_zeros(()), torch.empty_like(reward)
    for t in reversed(range(len(reward))):
        after = settings.discount * total
        total = reward[t] + after
        found[t] = (total if settings.count_own else after) / (len(reward) - t)
    return found


def advantages(samples: Sequence[Mapping[str, Tensor]], settings: Rollout) -> list[Tensor]:
    """Returns of all samples, whitened over their tokens (padding has no part in it); as they are where each update whitens
    its own."""
    found = [returns(rewards(each, settings), settings) for each in samples]
    return [each.float() for each in (whitened(found) if settings.whiten == "rollout" else found)]


def whitened(values: Sequence[Tensor], padded: int = 0) -> list[Tensor]:
    """Values less their mean, divided by their deviation.

    Args:
        padded: length of all rows, whose places without a value count as zeros then; 0: values alone count.
    """
    together = torch.cat(list(values)).double()
    count = max(len(together), padded * len(values))
    mean = together.sum() / count
    variance = ((together - mean).square().sum() + (count - len(together)) * mean.square()) / count
    return [(each - mean) / (variance + 1e-8).sqrt() for each in values]


def chosen_prompts(count: int, number: int, size: int, seed: int) -> list[int]:
    """Which of `count` prompts rollout `number` answers: `size` in a row of an endless sequence of shuffled passes."""
    places = (divmod(index, count) for index in range(number * size, (number + 1) * size))
    return [shuffled(count, turn, seed)[place] for turn, place in places]


@lru_cache(maxsize=4)  # asked for row by row
def shuffled(count: int, turn: int, seed: int) -> list[int]:
    """The order of one pass over `count` things."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + turn)).tolist()
