"""What the files of a model folder say that a study has to fit, read without torch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colpipe.config.parts import Source
from colpipe.errors import ColpipeError
from colpipe.hashing import key_of

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def staged(resources: str, kind: str, name: str, source: Source) -> str:
    """Where a source is staged; studies that name the same source share the folder."""
    return f"{resources}/{kind}/{name}-{key_of(source.model_dump())[:8]}"


def model_folder(name: str, source: Source) -> Path | None:
    """Where a model lies on this machine already: its own folder, staged, or in the Hugging Face cache; None where it does
    not, or is a file of another format."""
    folders = [Path(source.path)] if source.path else [Path(staged("resources", "models", name, source))]
    if source.hub and not (folders[0] / "config.json").is_file():
        from huggingface_hub import try_to_load_from_cache  # spared those who need none

        cached = try_to_load_from_cache(source.hub, "config.json", revision=source.revision)
        folders += [Path(cached).parent] if isinstance(cached, str) else []
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def read_mapping(path: Path) -> dict:
    """A JSON mapping; empty where there is none, or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def tokenizer_entries(folder: Path) -> int | None:
    """Rows that an embedding needs for the tokenizer in a folder: its highest id + 1; None where no file lists its ids.

    Raises:
        ColpipeError: names the file, and what in it is no id or holds none.
    """
    fast, own = folder / "tokenizer.json", folder / "vocab.json"
    mapping = read_mapping(fast)
    model = _typed(mapping.get("model", {}), dict, fast, "model")
    where = fast if model.get("vocab") else own
    listed = model.get("vocab") or read_mapping(own)
    if isinstance(listed, dict):
        ids = [_id(id, where, f"the id of {word!r}") for word, id in listed.items()]
    else:
        ids = [len(_typed(listed, list, where, "vocab")) - 1]
    for token in _typed(mapping.get("added_tokens", []), list, fast, "added_tokens"):
        ids.append(_id(_typed(token, dict, fast, "an added token").get("id"), fast, f"the id of {token!r}"))
    ids += _beside(folder)
    return max(ids) + 1 if listed else None


def _beside(folder: Path) -> Iterator[int]:
    """Ids of tokens that are added in files of their own."""
    added, config = folder / "added_tokens.json", folder / "tokenizer_config.json"
    for word, id in read_mapping(added).items():
        yield _id(id, added, f"the id of {word!r}")
    for id in _typed(read_mapping(config).get("added_tokens_decoder", {}), dict, config, "added_tokens_decoder"):
        yield _id(int(id) if id.isdecimal() else id, config, "a key of added_tokens_decoder")


def _typed(value: Any, kind: type, path: Path, what: str) -> Any:
    if not isinstance(value, kind):
        said = "mapping" if kind is dict else "list"
        raise ColpipeError(f"{path}: {what} is {value!r}, no {said}: save the tokenizer again")
    return value


def _id(value: Any, path: Path, what: str) -> int:
    if type(value) is not int or value < 0:
        raise ColpipeError(f"{path}: {what} is {value!r}, no whole number of 0 or more: save the tokenizer again")
    return value


def rows_problem(rows: int, entries: int, where: str, tokenizer: str) -> str | None:
    """Why an embedding of so many rows cannot serve a tokenizer; None where it can.

    Args:
        where: the rows are said: a key, or a model's folder.
        tokenizer: its folder.
    """
    if rows >= entries:
        return None
    return (
        f"{where}: {rows:,} rows of the embedding are less than the tokenizer's {entries:,} entries ({tokenizer}); ids from "
        f"{rows:,} on would have no row: give it {entries:,} or more, or a tokenizer without the entries beyond"
    )
