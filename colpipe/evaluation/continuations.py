"""How a model goes on from the beginning of a text: what people read beside its scores, and no score itself."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.config.constants import CONTINUED_TEMPERATURE, GENERATION_ROWS
from colpipe.data.encoding import encode
from colpipe.evaluation.generation import answer_all


def continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], tokens: int, seed: int
) -> list[dict[str, str]]:
    """Each prompt continued by up to so many tokens. It is read as plain text, without special tokens or a chat template.

    Args:
        seed: of the sampling.

    Returns:
        For each `prompt` what follows it, `greedy` and `sampled` at `CONTINUED_TEMPERATURE`, blanks included; or, where the
        model cannot read it and go on, `problem`: why.

    Raises:
        ColpipeError: the logits are not finite.
    """
    ids = dict(zip(prompts, encode(tokenizer, prompts), strict=True))
    problems = {prompt: _problem(model, tokenizer, ids[prompt], tokens) for prompt in prompts}
    read = [prompt for prompt in prompts if not problems[prompt]]
    found: dict[str, dict[str, str]] = {prompt: {} for prompt in read}
    for name, temperature in (("greedy", 0.0), ("sampled", CONTINUED_TEMPERATURE)):
        texts = answer_all(
            model, tokenizer, [ids[prompt] for prompt in read], tokens, GENERATION_ROWS, temperature, seed, whole=True
        )
        for prompt, text in zip(read, texts, strict=True):
            found[prompt][name] = text.removeprefix(tokenizer.decode(ids[prompt], skip_special_tokens=True))
    return [{"prompt": prompt, **found.get(prompt, {"problem": problems[prompt]})} for prompt in prompts]


def _problem(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], tokens: int) -> str:
    """Why a prompt of these ids is not continued; empty where it is."""
    positions = model.config.max_position_embeddings
    if not ids:
        return "the tokenizer makes no token of it"
    if unknown := ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0:
        return f"the tokenizer does not know {unknown} of its {len(ids)} tokens"
    if len(ids) + tokens > positions:
        return f"its {len(ids)} tokens and {tokens} more are longer than the model's {positions} positions"
    return ""
