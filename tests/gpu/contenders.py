"""Ours beside what others do: losses, sampling, attention. Each function makes a piece of work on a device."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from colpipe.training.objectives import Projection, chunked, reverse_kl
from colpipe.training.rollouts import sample
from tests.gpu.real import Pair, built

Work = Callable[[], object]
STUDENT, TEACHER = 768, 1024  # hidden widths
SHARE, ROWS, PROMPT, NEW = 0.2, 32, 64, 64


def _states(device: torch.device, tokens: int, vocabulary: int) -> tuple[torch.Tensor, ...]:
    """Student's states and head, which learn, and the teacher's, all in bfloat16."""
    torch.manual_seed(0)
    shapes = ((tokens, STUDENT), (vocabulary, STUDENT), (tokens, TEACHER), (vocabulary, TEACHER))
    found = [torch.randn(shape, device=device, dtype=torch.bfloat16) * 0.05 for shape in shapes]
    for value in found[:2]:
        value.requires_grad_()
    return tuple(found)


def _learning(loss: Callable[..., torch.Tensor], *shape) -> Work:
    states = _states(*shape)

    def work() -> None:
        for value in states[:2]:
            value.grad = None
        loss(*states).backward()

    return work


def ours(*shape, sizes: tuple[int | None, int | None] = (None, None)) -> Work:
    return _learning(
        lambda h, w, t, v: chunked(reverse_kl, Projection(h, w), Projection(t, v), *sizes) / len(h), *shape
    )


def naive(*shape) -> Work:
    def loss(hidden, head, taught, own):
        log_q, log_p = (F.log_softmax(F.linear(*pair).float(), -1) for pair in ((hidden, head), (taught, own)))
        return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)

    return _learning(loss, *shape)


def trl(*shape) -> Work:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    def loss(hidden, head, taught, own):
        mask = torch.ones(1, len(hidden), device=hidden.device)
        return _chunked_divergence_loss(hidden[None], taught[None], head, own, mask, beta=1.0)[0]

    return _learning(loss, *shape)


def liger(*shape) -> Work:
    from liger_kernel.transformers import LigerFusedLinearJSD

    fused = LigerFusedLinearJSD(jsd_beta=1.0)  # reverse KL at 1, as its documentation has it
    return _learning(lambda hidden, head, taught, own: fused(hidden, head, taught, own), *shape)


LOSSES = {"ours": ours, "naive": naive, "trl": trl, "Liger": liger}
NEEDS = {"trl": ("trl",), "Liger": ("liger_kernel",)}


def samplers(device: torch.device, pair: Pair, prompt: int = PROMPT, new: int = NEW) -> dict[str, tuple[Work, int]]:
    """Name → work, and the tokens that it samples; temperature 1, bfloat16, and no row ends early.

    Ours in memory that is taken beforehand and in caches that grow, and with four and eight times the rows, which is what
    several batches in flight could gain; `generate` as well with a static cache, which transformers compiles on CUDA, into
    CUDA graphs.
    """
    models = {name: built(pair, name, device, torch.bfloat16).eval() for name in ("student", "teacher")}
    shares = {"student": 1 - SHARE, "teacher": SHARE}

    def prompts(rows: int) -> torch.Tensor:
        return torch.randint(
            1, pair.architecture.vocabulary, (rows, prompt), generator=torch.Generator().manual_seed(0)
        )

    def mixed(rows: int, preallocated: bool | None = None) -> Work:
        return lambda: sample(models, shares, list(prompts(rows)), [new] * rows, [-1], 0, preallocated)

    def alone(name: str, **more) -> Work:
        model = (
            AutoModelForCausalLM.from_config(models[name].config).to(device, torch.bfloat16).eval()
        )  # counts nothing

        @torch.inference_mode()
        def work() -> None:
            ids = prompts(ROWS).to(device)
            settings = {"do_sample": True, "top_k": 0, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 0}
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings, **more)

        return work

    works = {
        "ours, both mixed": (mixed(ROWS), ROWS),
        "ours, caches that grow": (mixed(ROWS, False), ROWS),
        **{f"ours, {times} times the rows": (mixed(times * ROWS), times * ROWS) for times in (4, 8)},
        **{f"generate, {name} alone": (alone(name), ROWS) for name in models},
        "generate, student alone, static cache": (alone("student", cache_implementation="static"), ROWS),
    }
    return {name: (work, rows * new) for name, (work, rows) in works.items()}


def passes(device: torch.device, pair: Pair, attention: str, packed: bool) -> Work:
    """Forward and backward pass of the student's layers on 16 rows of 1,024 tokens, or on one row of as many."""
    model = built(pair, "student", device)
    model.set_attn_implementation(attention)
    ids = torch.randint(pair.architecture.vocabulary, (16, 1024), generator=torch.Generator().manual_seed(0)).to(device)
    given = {"input_ids": ids}
    if packed:
        positions = torch.arange(1024, device=device).repeat(16)[None]
        given = {"input_ids": ids.view(1, -1), "position_ids": positions}

    def work() -> None:
        model.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            model.base_model(**given, use_cache=False).last_hidden_state.float().square().mean().backward()

    return work


def compiled(model: PreTrainedModel, way: str) -> PreTrainedModel:
    """A model whose blocks, one compiled like the other, or whose layers as a whole are compiled when they are called."""
    base = model.base_model
    parts = (
        next(part for part in base.children() if isinstance(part, torch.nn.ModuleList)) if way == "blocks" else [base]
    )
    for part in parts:
        part.compile(mode="reduce-overhead" if way.endswith("CUDA graphs") else None)
    return model
