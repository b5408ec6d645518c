"""Batched generation: prompts of similar length together, behind the begin token where the tokenizer puts one, padded on
the left, seeded."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from colpipe.data.encoding import Prompt, encode_prompts
from colpipe.hf.finite import require_finite
from colpipe.hf.generation_config import end_ids, without_own_settings


def batches_by_length(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, size: int) -> list[list[int]]:
    """Indices of the prompts in batches of similar length, so that little is spent on padding; longest first."""
    lengths = [len(ids) for ids in encode_prompts(tokenizer, prompts)]
    order = sorted(range(len(prompts)), key=lambda index: (-lengths[index], index))
    return [order[start : start + size] for start in range(0, len(order), size)]


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    temperature: float,
    seed: int,
    whole: bool = False,
) -> list[str]:
    """Answers to one batch of prompts, as `completions` gives them, without special tokens and blanks around them.

    Args:
        whole: give each prompt with what follows it, as it is, instead.
    """
    ids = completions(model, tokenizer, prompts, max_new_tokens, temperature, seed)
    if whole:
        texts = zip(encode_prompts(tokenizer, prompts), ids.tolist(), strict=True)
        return [tokenizer.decode([*prompt, *new], skip_special_tokens=True) for prompt, new in texts]
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


@torch.inference_mode()
def completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> torch.Tensor:
    """Token ids (B, N) that follow each of a batch of prompts; padded behind an end of text.

    `generate` derives position ids from the attention mask, so left padding is right for learnt positions (GPT-2) too. An
    answer ends with any of the model's ends of text; nothing else of its own generation settings counts.

    Args:
        temperature: 0 is greedy, else sampling from the whole distribution.
        seed: of the sampling.

    Raises:
        ColpipeError: the logits are not finite.
    """
    encoded = tokenizer.pad({"input_ids": encode_prompts(tokenizer, prompts)}, padding_side="left", return_tensors="pt")
    encoded = {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=end_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        **({"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}),
    )

    def check(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        require_finite(logits.logsumexp(-1), model, "its logits for an answer")
        return logits

    torch.manual_seed(seed)
    with without_own_settings(model):
        ids = model.generate(**encoded, generation_config=settings, logits_processor=[check])
    return ids[:, encoded["input_ids"].shape[1] :]


def answer_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
    whole: bool = False,
) -> list[str]:
    """Answers to all prompts, in their order; for the arguments see `answer`."""
    model.eval()
    answers, ids = [""] * len(prompts), encode_prompts(tokenizer, prompts)
    for number, batch in enumerate(batches_by_length(ids, tokenizer, batch_size)):
        texts = answer(model, tokenizer, [ids[i] for i in batch], max_new_tokens, temperature, seed + number, whole)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
    return answers
