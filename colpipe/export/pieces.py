"""BPE as SentencePiece makes it (Gemma 3, Llama 2), which llama.cpp reads as tokens with scores instead of merges.

llama.cpp joins the two neighbours whose text is the token of the highest score, whatever merges there are. It does what
`tokenizer.json` says only where every pair whose text is a token is a merge, and the merges of one token follow each other:
so are those that were converted from SentencePiece's models, in which runs of spaces may have one score.
"""

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from colpipe.errors import ColpipeError

SPACE = "▁"
LONGEST_RUN = 128  # of spaces, that is looked at
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Prepend", "prepend": SPACE}
# Does nothing to a text whose spaces are replaced.
SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def is_pieces(model: Mapping[str, Any]) -> bool:
    """Whether a model of tokenizer.json is BPE of characters, with bytes as a fallback."""
    return model["type"] == "BPE" and bool(model.get("byte_fallback"))


def adds_space(steps: Mapping[str, Any], where: str) -> bool:
    """Whether a text, and what follows a special token, gets a space before it, of tokenizer.json.

    Raises:
        ColpipeError: something else is done to a text than llama.cpp does.
    """
    step, before = steps["normalizer"], steps["pre_tokenizer"]
    normalised = step["normalizers"] if step and step["type"] == "Sequence" else [step] if step else []
    prefix = normalised == [PREPEND, REPLACE]
    if not ((prefix or normalised == [REPLACE]) and before in (None, SPLIT)) and not (
        not normalised and before and _only_replaces(before)
    ):
        found = f"normalizer {normalised}, pre_tokenizer {before}"
        raise ColpipeError(
            f"{where}: tokenizer.json: {found if len(found) <= 240 else found[:237] + '...'}: llama.cpp replaces spaces by "
            f"{SPACE}, before all texts or none; of a text that starts with a space, Metaspace makes something else"
        )
    for token in steps["added_tokens"]:
        if token["normalized"] and (prefix or " " in token["content"]):
            raise ColpipeError(
                f"{where}: tokenizer.json: added token {token['content']!r} is looked for after spaces are replaced "
                "(normalized), in llama.cpp before"
            )
    return prefix


def _only_replaces(step: Mapping[str, Any]) -> bool:
    """Whether a pre-tokenizer replaces spaces and does nothing else."""
    kind, char, prepends = step["type"], step.get("replacement"), step.get("prepend_scheme")
    return (kind, char, prepends, step.get("split")) == ("Metaspace", SPACE, "never", False)


def scores(model: Mapping[str, Any], added: Sequence[Mapping[str, Any]], where: str) -> dict[str, float]:
    """Token → score, of the tokens that merges make: the earlier, the higher.

    Args:
        model, added: those of tokenizer.json.

    Raises:
        ColpipeError: no scores say what the merges do, or a byte has no token.
    """
    vocab = model["vocab"]
    # Found in a text before anything is merged, so that merges never meet them.
    apart = {token["content"] for token in added if token["special"] or SPACE not in token["content"]}
    # A character of one byte may be the token of that byte (the tab, in conversions of Gemma's).
    missing = [f"<0x{byte:02X}>" for byte in range(256) if not (byte < 128 and chr(byte) in vocab)]
    if missing := [byte for byte in missing if byte not in vocab]:
        raise ColpipeError(
            f"{where}: tokenizer.json: {len(missing)} of 256 bytes have no token ({missing[0]}): llama.cpp falls back to all"
        )
    if model.get("ignore_merges"):
        raise ColpipeError(
            f"{where}: tokenizer.json: ignore_merges true: llama.cpp merges all words of such a tokenizer"
        )
    pairs = _pairs(model)
    made = [pair for pair in pairs if "".join(pair) not in apart]
    tied = bool(tied_runs(model))
    names = [SPACE if tied and _is_run(left + right) else left + right for left, right in made]
    if (at := _comes_again(names)) is not None:
        left, right = made[at]
        raise ColpipeError(
            f"{where}: tokenizer.json: merges: {left!r} with {right!r} comes after merges of other tokens than "
            f"{left + right!r}: llama.cpp has one place in the order for all that make a token"
        )
    order = {name: -float(place) for place, name in enumerate(dict.fromkeys(names))}
    found = {left + right: order[name] for (left, right), name in zip(made, names, strict=True)}
    words = [*vocab, *(token["content"] for token in added)]
    _require_all([word for word in words if word not in apart], vocab, set(pairs), where)
    return found


def tied_runs(model: Mapping[str, Any]) -> list[str]:
    """The tokens that are runs of spaces, where merges make them in an order that has no place for each: in SentencePiece's
    model they have one score, so that the leftmost are merged first, which conversions write down as longest first."""
    runs = [left + right for left, right in _pairs(model) if _is_run(left + right)]
    return list(dict.fromkeys(runs)) if _comes_again(runs) is not None else []


def run_notes(steps: Mapping[str, Any]) -> list[str]:
    """From how many spaces on llama.cpp makes other tokens of them, where runs have one score, of tokenizer.json."""
    lengths = {1, *map(len, tied_runs(steps["model"]))}
    if len(lengths) == 1:
        return []
    plain = {**steps, "added_tokens": [], **dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor"))}
    merged = Tokenizer.from_str(json.dumps(plain))
    for length in range(1, LONGEST_RUN + 1):
        if [len(token) for token in merged.encode(SPACE * length).tokens] != _leftmost_first(length, lengths):
            return [f"runs of spaces are other tokens in llama.cpp, from {length} spaces on"]
    return []


def _leftmost_first(length: int, known: Container[int]) -> list[int]:
    """Lengths of the tokens that llama.cpp makes of a run of spaces."""
    parts = [1] * length
    at = 0
    while at < len(parts) - 1:
        if parts[at] + parts[at + 1] in known:
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            at = max(at - 1, 0)
        else:
            at += 1
    return parts


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]


def _is_run(word: str) -> bool:
    return not word.strip(SPACE)


def _comes_again(names: Sequence[str]) -> int | None:
    """Place of the first name that has come before, with others between."""
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name in seen and name != names[place - 1]:
            return place
        seen.add(name)
    return None


def _require_all(words: Iterable[str], vocab: Mapping[str, int], pairs: Container[tuple[str, ...]], where: str) -> None:
    """Refuse a token that two neighbours make by their text alone. Characters are neighbours even without a token."""
    for word in words:
        for at in range(1, len(word)) if not BYTE.fullmatch(word) else ():
            left, right = word[:at], word[at:]
            if (at == 1 or left in vocab) and (at == len(word) - 1 or right in vocab) and (left, right) not in pairs:
                raise ColpipeError(
                    f"{where}: tokenizer.json: merges: none of {left!r} with {right!r}, of which llama.cpp would make the "
                    f"token {word!r}"
                )
