"""What the files of a model folder say that a study has to fit, read without torch."""

import json
from pathlib import Path

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def read_mapping(path: Path) -> dict:
    """A JSON mapping; empty where there is none, or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def tokenizer_entries(folder: Path) -> int | None:
    """Rows that an embedding needs for the tokenizer in a folder: its highest id + 1; None where no file lists its ids."""
    fast = read_mapping(folder / "tokenizer.json")
    listed = fast.get("model", {}).get("vocab") or read_mapping(folder / "vocab.json")
    ids = list(listed.values()) if isinstance(listed, dict) else [len(listed) - 1]
    ids += [token["id"] for token in fast.get("added_tokens", [])]
    ids += read_mapping(folder / "added_tokens.json").values()
    ids += map(int, read_mapping(folder / "tokenizer_config.json").get("added_tokens_decoder", {}))
    return max(ids) + 1 if listed else None


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
