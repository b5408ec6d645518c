"""A tokenizer as llama.cpp reads it: byte-level BPE, whose pre-tokenizer it knows by a name, or SentencePiece's BPE."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from transformers import PreTrainedTokenizerBase

from colpipe.errors import ColpipeError
from colpipe.export.pieces import BYTE, SPACE, adds_space, is_pieces, run_notes, scores
from colpipe.hf.tokenizers import require_rows

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# What splits a text before the bytes are merged, in llama.cpp by a name: the regular expressions of GPT-2 (also that of
# Pythia), after single digits SmolLM's, Llama 3's and Qwen's.
SPLITS = {
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{WORDS}|\p{{N}}{{1,3}}|{OTHERS}": "llama-bpe",
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{WORDS}|\p{{N}}|{OTHERS}": "qwen2",
}
IGNORES_MERGES = "llama-bpe"  # a word that is a token is not merged from its bytes
END_KEYS = ("eos", "eot", "eom")  # ends of a text that a GGUF file has keys for


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Attributes:
        tokens, types: one for each row of the embedding.
        merges: pairs, in the order in which they are made; of byte-level BPE.
        scores: one for each token, of SentencePiece's BPE.
        prefix: whether SentencePiece's BPE puts a space before a text.
        pre: llama.cpp's name of what splits a text first.
        begins, ends: whether a text gets the bos token before it, the eos token after it.
        notes: what llama.cpp does differently, or what was added, a phrase each.
    """

    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    scores: list[float]
    prefix: bool
    pre: str
    begins: bool
    ends: bool
    notes: list[str]


def vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, where: str) -> Vocabulary:
    """A tokenizer as llama.cpp reads it.

    Args:
        rows: of the embedding; rows that no token has get names of their own.
        where: names the folder in errors.

    Raises:
        ColpipeError: it is no BPE, or does something that llama.cpp has no name for.
    """
    if not tokenizer.is_fast:
        raise ColpipeError(f"{where}: its tokenizer has no tokenizer.json, which the export to GGUF reads")
    require_rows(tokenizer, rows, where)
    steps = json.loads(tokenizer.backend_tokenizer.to_str())
    model = steps["model"]
    if model["type"] != "BPE":
        raise ColpipeError(
            f"{where}: tokenizer.json: model {model['type']}: exported are BPE tokenizers, byte-level or SentencePiece's"
        )
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise ColpipeError(f"{where}: tokenizer.json: {key} {model[key]!r}: llama.cpp has no such thing")
    pieces, added = is_pieces(model), steps["added_tokens"]
    pre = "default" if pieces else _known_words(steps, where)
    prefix = adds_space(steps, where) if pieces else False
    begins, ends = _around(tokenizer, where)
    notes = run_notes(steps) if pieces else _normalising(steps["normalizer"], where)
    tokens, types = [f"[PAD{row}]" for row in range(rows)], [TokenType.UNUSED] * rows
    for word, id in model["vocab"].items():
        tokens[id], types[id] = word, TokenType.BYTE if pieces and BYTE.fullmatch(word) else TokenType.NORMAL
    ranks = scores(model, added, where) if pieces else {}
    for token in added:
        if types[token["id"]] != TokenType.UNUSED and tokens[token["id"]] != token["content"]:
            raise ColpipeError(
                f"{where}: tokenizer.json: id {token['id']} is {tokens[token['id']]!r} in the vocabulary and "
                f"{token['content']!r} among added tokens"
            )
        tokens[token["id"]] = token["content"]
        merged = pieces and SPACE in token["content"] and token["content"] in model["vocab"]  # such as a run of spaces
        if token["special"] or not merged:
            types[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    if pieces and tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = TokenType.UNKNOWN
    _require_different(tokens, where)
    if unused := types.count(TokenType.UNUSED):
        notes.append(f"{unused:,} rows of the embedding that no token has are named [PAD…]")
    missing = [byte for byte in ByteLevel.alphabet() if byte not in model["vocab"]]
    if missing and model.get("unk_token") and not pieces:
        notes.append(
            f"{len(missing)} of 256 bytes have no token: the tokenizer says {model['unk_token']} there, llama.cpp nothing"
        )
    if stripped := [token["content"] for token in added if token["lstrip"] or token["rstrip"] or token["single_word"]]:
        notes.append(f"{len(stripped)} tokens take the space beside them ({stripped[0]}), which llama.cpp leaves there")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    lowest = -float(len(ranks))
    return Vocabulary(
        tokens,
        types,
        merges=[] if pieces else merges,
        scores=[ranks.get(token, lowest) for token in tokens] if pieces else [],
        prefix=prefix,
        pre=pre,
        begins=begins,
        ends=ends,
        notes=notes,
    )


def _known_words(steps: Mapping[str, Any], where: str) -> str:
    """llama.cpp's name of a byte-level tokenizer's pre-tokenizer, which also says whether words that are tokens are merged.

    Raises:
        ColpipeError: it has none, or one that differs in that.
    """
    model, pre = steps["model"], pre_tokenizer(steps["pre_tokenizer"], where)
    if bool(model.get("ignore_merges")) != (pre == IGNORES_MERGES) and (lost := _not_merged(steps)):
        raise ColpipeError(
            f"{where}: tokenizer.json: ignore_merges {bool(model.get('ignore_merges'))}: with {pre!r}, llama.cpp has the "
            f"other, and {lost:,} tokens that merges do not make would come out differently"
        )
    return pre


def pre_tokenizer(step: Mapping[str, Any] | None, where: str) -> str:
    """llama.cpp's name of a pre-tokenizer of tokenizer.json.

    Raises:
        ColpipeError: it has none.
    """
    steps = _flat(step)
    *before, last = steps or [{}]
    if last.get("type") == "ByteLevel" and not last["add_prefix_space"]:
        regex = last.get("use_regex", True)
        if regex and not before:
            return "gpt-2"
        if regex and before == [{"type": "Digits", "individual_digits": True}]:
            return "smollm"
        if not regex and len(before) == 1 and (before[0]["type"], before[0].get("behavior")) == ("Split", "Isolated"):
            name = SPLITS.get(before[0]["pattern"].get("Regex"))
            if name and not before[0]["invert"]:
                return name
    text = json.dumps(steps)
    raise ColpipeError(
        f"{where}: tokenizer.json: pre_tokenizer {text if len(text) <= 160 else text[:157] + '...'}: none that is known to "
        "be in llama.cpp; exported are those of GPT-2 (and Pythia), SmolLM, Llama 3 and Qwen"
    )


def pre_tokenizer_of(name: str) -> PreTokenizer | None:
    """The other way: the pre-tokenizer that llama.cpp knows by a name; None of a name that is not known here."""
    if name == "smollm":
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    if name == "gpt-2":
        return ByteLevel(add_prefix_space=False)
    for pattern, known in SPLITS.items():
        if name == known:
            return Sequence(
                [Split(Regex(pattern), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
            )
    return None


def _flat(step: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return [one for part in step["pretokenizers"] for one in _flat(part)] if step["type"] == "Sequence" else [step]


def _not_merged(steps: Mapping[str, Any]) -> int:
    """Number of tokens that merges of their bytes do not make: what ignore_merges is there for."""
    plain = {**steps, "added_tokens": [], "model": {**steps["model"], "ignore_merges": False}}
    for step in ("normalizer", "pre_tokenizer", "post_processor"):
        plain[step] = None
    added = {token["content"] for token in steps["added_tokens"]}
    words = [word for word in steps["model"]["vocab"] if word not in added]
    return sum(len(found.ids) != 1 for found in Tokenizer.from_str(json.dumps(plain)).encode_batch(words))


def _normalising(step: Mapping[str, Any] | None, where: str) -> list[str]:
    kinds = [part["type"] for part in (step or {}).get("normalizers", [step] if step else [])]
    if set(kinds) - {"NFC"}:
        raise ColpipeError(f"{where}: tokenizer.json: normalizer {', '.join(kinds)}: llama.cpp changes no text")
    return ["llama.cpp does not compose characters (NFC) as the tokenizer does"] if kinds else []


def _around(tokenizer: PreTrainedTokenizerBase, where: str) -> tuple[bool, bool]:
    """Whether the tokenizer puts bos before a text, and eos after it."""
    bare, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    bos, eos = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    for begins, ends in ((False, False), (True, False), (False, True), (True, True)):
        if whole == begins * bos + bare + ends * eos:
            return begins, ends
    raise ColpipeError(
        f"{where}: its tokenizer makes {whole} of 'a': llama.cpp puts bos before a text and eos after it"
    )


def _require_different(tokens: list[str], where: str) -> None:
    first: dict[str, int] = {}
    for id, token in enumerate(tokens):
        if first.setdefault(token, id) != id:
            raise ColpipeError(f"{where}: its tokens {first[token]} and {id} are both written {token!r} in a GGUF file")


def add_vocabulary(
    writer: GGUFWriter, found: Vocabulary, tokenizer: PreTrainedTokenizerBase, ends: list[int], template: str | None
) -> None:
    """Write a tokenizer into a GGUF file.

    Args:
        ends: every id that ends a text, the tokenizer's first.
        template: chat template.
    """
    writer.add_tokenizer_model("llama" if found.scores else "gpt2")
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.types)
    if found.scores:
        writer.add_token_scores(found.scores)
        writer.add_add_space_prefix(found.prefix)
    else:
        writer.add_token_merges(found.merges)
    writer.add_add_bos_token(found.begins)
    writer.add_add_eos_token(found.ends)
    ids = {"bos": tokenizer.bos_token_id, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    for name, id in {**dict(zip(END_KEYS, ends, strict=False)), **ids}.items():
        if id is not None:
            getattr(writer, f"add_{name}_token_id")(id)
    if template:
        writer.add_chat_template(template)
