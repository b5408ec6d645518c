"""Neighbours speak one language: the check that two model folders have the same tokenizer."""

import json
from pathlib import Path

from colpipe.errors import ColpipeError
from colpipe.learngene.weights import Weights


def require_same_tokenizer(first: Weights, second: Weights) -> None:
    """Refuse two folders whose tokenizers map text to different ids; models without one are taken on trust.

    Raises:
        ColpipeError: names both folders, both vocabulary sizes and the first entry that differs.
    """
    one, other = (_vocabulary(weights.folder) if weights.folder else None for weights in (first, second))
    if one is None or other is None or one == other:
        return
    differing = sorted(one.items() ^ other.items(), key=lambda entry: entry[1])
    raise ColpipeError(
        f"{first.name} and {second.name} have different tokenizers (vocabulary {len(one):,} and {len(other):,}; the first "
        f"difference is {differing[0][0]!r}): neighbours share one, or token ids would mean different words"
    )


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Token → id, from tokenizer.json or vocab.json."""
    fast, slow = folder / "tokenizer.json", folder / "vocab.json"
    try:
        if fast.exists():
            vocabulary = json.loads(fast.read_text())["model"]["vocab"]
            return vocabulary if isinstance(vocabulary, dict) else {entry[0]: i for i, entry in enumerate(vocabulary)}
        return json.loads(slow.read_text()) if slow.exists() else None
    except (ValueError, KeyError) as error:
        raise ColpipeError(f"{folder}: its tokenizer cannot be read: {error}") from None
