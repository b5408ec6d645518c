"""Neighbours speak one language: whether two models have the same tokenizer, and whether a model has room for it."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colpipe.config.folders import rows_problem, tokenizer_entries
from colpipe.errors import ColpipeError, first_line
from colpipe.hashing import sha256

# Files that hold a vocabulary, what is beside it, and what needs no comparing.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
BESIDE = ("merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
SPECIAL = ("bos", "eos", "unk", "pad")
STEPS = ("normalizer", "pre_tokenizer", "model", "added_tokens")  # of tokenizer.json: from text to ids
IDLE = ("vocab", "trim_offsets", "special", "id")  # compared by themselves, or without effect on ids
ADVICE = "neighbours share one, or token ids would mean different words"


def tokenizer_folder(source) -> Path | None:
    """Where the tokenizer of a model folder, or of a loaded model that came from one, lies; None where there is none."""
    name = source
    if not isinstance(source, str | os.PathLike):
        name = getattr(source, "tokenizer_source", None) or getattr(source, "name_or_path", None)
    folder = Path(name) if name else None
    return folder if folder and any(_files(folder, VOCABULARIES)) else None


def require_same_tokenizer(first, second, advice: str = ADVICE, special_too: bool = True) -> None:
    """Refuse two models whose tokenizers map text to different ids; where one has none, it is taken on trust, and said.

    Args:
        first, second: model folders, or loaded models, whose folder is looked at where they have one.
        advice: what to do, for the message.
        special_too: whether the tokens that begin, end and pad a text have to be the same.

    Raises:
        ColpipeError: names both folders and the first difference with both values; or says why they cannot be compared.
    """
    one, other = tokenizer_folder(first), tokenizer_folder(second)
    if one is None or other is None:
        if one or other:
            logging.getLogger(__name__).warning(
                "%s: there is no tokenizer beside its neighbour; it is taken on trust that this one serves both",
                one or other,
            )
        return
    if one == other or _digests(one) == _digests(other):
        return
    mine, theirs = _load(one, other), _load(other, one)
    for what, a, b in _differences(mine, theirs, special_too):
        raise ColpipeError(
            f"{one} and {other} have different tokenizers: {what} is {a} in the first, {b} in the second; {advice}"
        )


def require_tokenizer_rows(source, rows: int, where: str) -> None:
    """Refuse a model to be made with fewer rows than the tokenizer that comes with it has entries.

    Args:
        source: model folder, or loaded model, whose tokenizer it will have.
        rows: of the new model's embedding.
        where: they come from, for the message.

    Raises:
        ColpipeError: names both sizes.
    """
    if (folder := tokenizer_folder(source)) is None:
        return
    entries = tokenizer_entries(folder)
    if entries is None:  # the files list no ids: of sentencepiece, say
        try:
            entries = max(_load(folder).get_vocab().values()) + 1
        except ColpipeError as error:
            logging.getLogger(__name__).warning("%s", error)
            return
    if problem := rows_problem(rows, entries, where, str(folder)):
        raise ColpipeError(problem)


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in _files(folder, VOCABULARIES + BESIDE)}


def _load(folder: Path, other: Path | None = None):
    from transformers import AutoTokenizer  # seconds, spared those who have nothing to compare

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        names = ", ".join(path.name for path in _files(folder, VOCABULARIES))
        said = f"its tokenizer ({names}) cannot be loaded: {first_line(error)}"
        asked = f"compared with the other one of {other}" if other else "held against the vocabulary"
        raise ColpipeError(
            f"{folder}: {said}; so it cannot be {asked}: save it as tokenizer.json (tokenizer.save_pretrained)"
        ) from None


def _differences(first, second, special_too: bool) -> Iterator[tuple[str, str, str]]:
    """(what, value of the first, value of the second), ids first."""
    words = [{id: word for word, id in tokenizer.get_vocab().items()} for tokenizer in (first, second)]
    for id in sorted(words[0].items() ^ words[1].items())[:1]:
        one, other = (repr(each[id[0]]) if id[0] in each else "no token" for each in words)
        yield f"id {id[0]}", one, other
    for name in SPECIAL if special_too else ():
        one, other = (getattr(tokenizer, f"{name}_token") for tokenizer in (first, second))
        if one != other and (name != "pad" or (one and other)):  # a padding token is added where there is none
            yield f"the {name} token", repr(one), repr(other)
    if special_too and first("")["input_ids"] != second("")["input_ids"]:
        yield "what is put around a text", str(first("")["input_ids"]), str(second("")["input_ids"])
    if first.is_fast and second.is_fast:
        one, other = (json.loads(tokenizer.backend_tokenizer.to_str()) for tokenizer in (first, second))
        # A token that one of them alone declares special is among its added ones, and a plain entry of the other.
        declared = {*first.all_special_tokens, *second.all_special_tokens}
        names = [{token["content"] for token in each["added_tokens"]} for each in (one, other)]
        declared &= names[0] ^ names[1]
        for each in (one, other):
            found = {token["content"]: token for token in each["added_tokens"]}
            each["added_tokens"] = {name: token for name, token in found.items() if name not in declared}
        for step in STEPS:
            yield from _unequal(_plain(one.get(step)), _plain(other.get(step)), step)
    elif type(first) is not type(second):
        yield "the kind", type(first).__name__, type(second).__name__


def _plain(step: Any) -> Any:
    """A step of tokenizer.json without sequences around one step alone, or around none."""
    if not isinstance(step, dict) or step.get("type") != "Sequence":
        return step
    name = next(key for key in step if key != "type")
    inside = [part for part in map(_plain, step[name]) if part is not None]
    return {**step, name: inside} if len(inside) > 1 else next(iter(inside), None)


def _unequal(first: Any, second: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Where two JSON values differ, leaf by leaf."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted((first.keys() | second.keys()) - set(IDLE)):
            yield from _unequal(first.get(key), second.get(key), f"{path}.{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from _unequal(one, other, f"{path}.{number}")
    elif isinstance(first, list) and isinstance(second, list):
        common = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
        if common is None:
            yield f"the length of {path}", str(len(first)), str(len(second))
        else:
            yield f"{path}.{common}", _short(first[common]), _short(second[common])
    elif first != second:
        yield path, _short(first), _short(second)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
