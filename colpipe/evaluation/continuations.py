"""How a model goes on from the beginning of a text: what people read beside its scores, and no score itself."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.config.constants import CONTINUED_TEMPERATURE, GENERATION_ROWS
from colpipe.data.encoding import begin_id, begun, encode
from colpipe.evaluation.generation import answer_all


def continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], tokens: int, seed: int
) -> list[dict[str, str]]:
    """Each prompt continued by up to so many tokens. It is read as plain text, without a chat template and without special
    tokens but the begin token, where the tokenizer puts one.

    Args:
        seed: of the sampling.

    Returns:
        For each `prompt` what follows it, `greedy` and `sampled` at `CONTINUED_TEMPERATURE`, blanks included; or, where the
        model cannot read it and go on, `problem`: why.

    Raises:
        ColpipeError: the logits are not finite.
    """
    ids = dict(zip(prompts, encode(tokenizer, prompts), strict=True))
    begin = begin_id(tokenizer)
    problems = {prompt: _problem(model, tokenizer, ids[prompt], begin, tokens) for prompt in prompts}
    read = [prompt for prompt in prompts if not problems[prompt]]
    found: dict[str, dict[str, str]] = {prompt: {} for prompt in read}
    for name, temperature in (("greedy", 0.0), ("sampled", CONTINUED_TEMPERATURE)):
        texts = answer_all(
            model,
            tokenizer,
            [begun(prompt, ids[prompt], begin) for prompt in read],
            tokens,
            GENERATION_ROWS,
            temperature,
            seed,
            whole=True,
        )
        for prompt, text in zip(read, texts, strict=True):
            found[prompt][name] = text.removeprefix(tokenizer.decode(ids[prompt], skip_special_tokens=True))
    return [{"prompt": prompt, **found.get(prompt, {"problem": problems[prompt]})} for prompt in prompts]


def _problem(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], begin: int | None, tokens: int
) -> str:
    """Why a prompt of these ids is not continued; empty where it is."""
    positions = model.config.max_position_embeddings
    if not ids:
        return "the tokenizer makes no token of it"
    if unknown := ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0:
        return f"the tokenizer does not know {unknown} of its {len(ids)} tokens"
    if (length := len(begun("", ids, begin))) + tokens > positions:
        return f"its {length} tokens and {tokens} more are longer than the model's {positions} positions"
    return ""
