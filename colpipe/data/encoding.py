"""Text as token ids: what looks like a special token in a text (`<|endoftext|>` in a page about tokenizers) is text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from colpipe.errors import ColpipeError

Prompt = str | list[int]  # text, or token ids where a chat template wrote special tokens around it


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each text, without special tokens; prompts that are token ids already stay what they are.

    It is for parts of what a model reads: documents, answers. `encode_prompts` is for what it reads from the start.
    """
    plain = [text for text in texts if isinstance(text, str)]
    # not `verbose`: a text longer than the model's positions gives no warning, blocks and rows see to their lengths
    settings = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    found = iter(tokenizer(plain, return_attention_mask=False, **settings)["input_ids"] if plain else ())
    return [next(found) if isinstance(text, str) else text for text in texts]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt as a model reads it, behind the begin token where the tokenizer puts one (`begin_id`).

    Raises:
        ColpipeError: as in `begin_id`.
    """
    begin = begin_id(tokenizer)
    return [begun(*each, begin) for each in zip(prompts, encode(tokenizer, prompts), strict=True)]


def begun(prompt: Prompt, ids: list[int], begin: int | None) -> list[int]:
    """The ids of a prompt behind a begin token, if there is one; a chat template may have written it already."""
    if begin is None or (not isinstance(prompt, str) and ids[:1] == [begin]):
        return ids
    return [begin, *ids]


def begin_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the token that a tokenizer of itself puts before a text, so that its models have learnt to read it first: the
    bos of Gemma, Llama and Mistral. None: it puts none there, whether it has a bos token (GPT-2, SmolLM2) or not (Qwen).

    Raises:
        ColpipeError: it puts several there, or it cannot be told.
    """
    bare, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    if bare == whole:
        return None
    before = next((at for at in (0, 1) if bare and whole[at : at + len(bare)] == bare), None)
    if before is None:
        raise ColpipeError(
            f"{tokenizer.name_or_path}: its tokenizer makes {bare} of 'a', and {whole} with its special tokens; only one "
            "token before a text is handled: save it with one or none (its post-processor)"
        )
    return whole[0] if before else None


def begin_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text of the token that `begin_id` gives, if there is one."""
    begin = begin_id(tokenizer)
    return None if begin is None else tokenizer.convert_ids_to_tokens(begin)


def begin_entry(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """What the manifest of a corpus says of its begin token: `begin`, or nothing."""
    begin = begin_id(tokenizer)
    return {} if begin is None else {"begin": begin}


def confused_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the special tokens that a tokenizer makes of their text all the same: those that are entries of its model.

    Byte-level BPE has none. The unknown token is not counted: it stands for what has no id of its own.
    """
    known = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id} | {tokenizer.eos_token_id}
    texts = [tokenizer.convert_ids_to_tokens(number) for number in sorted(known)]
    found = {number for ids in encode(tokenizer, [f"{text} a {text} b{text}c" for text in texts]) for number in ids}
    return sorted(known & found)
