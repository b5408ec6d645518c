"""Greedy completions and samples from a mixture, cached and padded on the left, against float64 over whole rows."""

from collections.abc import Iterator

import torch

from colpipe.evaluation.generation import completions
from colpipe.training.rollouts import sample
from tests.gpu.finding import Finding, found, within
from tests.gpu.tiny import END, LARGE, PROMPTS, SMALL, World, model, relative
from tests.gpu.words import tokenizer

NEW, SHARE = 16, 0.2


def check(world: World) -> Iterator[Finding]:
    yield _greedy(world)
    yield from _mixture(world)


def _greedy(world: World) -> Finding:
    one, words = model(SMALL, 1, surer=3.0), tokenizer()
    exact = model(SMALL, 1, surer=3.0).double()
    prompts = [prompt.tolist() for prompt in PROMPTS]
    ids = completions(one.to(world.device), words, prompts, NEW, 0.0, 0).cpu()
    right = [row.tolist() for row in ids] == [_next(exact, prompt, ids.shape[1]) for prompt in prompts]
    said = f"{len(prompts)} prompts of {len(set(map(len, prompts)))} lengths, {ids.numel()} tokens"
    return found(right, "greedy", said + ("" if right else "; not the most probable ones"))


@torch.no_grad()
def _next(exact, prompt: list[int], count: int) -> list[int]:
    """The most probable tokens, one by one over the whole row; padding behind an end of text."""
    ids = list(prompt)
    for _ in range(count):
        ended = END in ids[len(prompt) :]
        ids.append(END if ended else exact(torch.tensor([ids])).logits[0, -1].argmax().item())
    return ids[len(prompt) :]


def _mixture(world: World) -> Iterator[Finding]:
    shapes = {"student": (SMALL, 1, 1.0), "teacher": (LARGE, 2, 2.0)}
    shares = {"student": 1 - SHARE, "teacher": SHARE}
    models = {name: model(shape, seed, surer=surer).to(world.device) for name, (shape, seed, surer) in shapes.items()}
    exact = {name: model(shape, seed, surer=surer).double() for name, (shape, seed, surer) in shapes.items()}
    for preallocated in (False, True):
        samples = sample(models, shares, PROMPTS, [NEW] * len(PROMPTS), [END], 0, preallocated)
        known = [_log_probabilities(exact, shares, row) for row in samples]
        errors = {
            name: relative(torch.cat([row[name] for row in samples]), torch.cat([row[name] for row in known]))
            for name in (*shapes, "sampled")
        }
        tokens = sum(len(row["answer"]) for row in samples)
        name = f"samples of a mixture{', caches preallocated' * preallocated}"
        yield within(name, errors, 1e-4, f"{tokens} tokens; log-probabilities: ")


@torch.no_grad()
def _log_probabilities(exact: dict, shares: dict, row: dict) -> dict:
    """By each model and by the mixture, of the tokens of a sample."""
    ids = torch.cat([row["prompt"], row["answer"]])
    found = {}
    for name, one in exact.items():
        logs = one(ids[None]).logits[0, len(row["prompt"]) - 1 : -1].log_softmax(-1)
        found[name] = logs.gather(1, row["answer"][:, None])[:, 0]
    return {**found, "sampled": sum(shares[name] * value.exp() for name, value in found.items()).log()}
