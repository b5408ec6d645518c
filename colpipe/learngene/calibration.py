"""Text that a model is measured and fitted on, as batches of its token ids."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from colpipe.data.encoding import begin_id, encode
from colpipe.errors import ColpipeError, not_utf8
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.learngene.tokenizers import tokenizer_folder

LENGTH = 256  # tokens in a row, or the model's positions where these are fewer
ROWS = 8  # in a batch


def token_batches(source, text, tokens: int, positions: int) -> list[Tensor]:
    """Batches (rows, tokens) of so many tokens of a text, in rows evenly spread over it; each text's end is a token too.

    Each row begins with the token that the tokenizer puts before a text, if it does, beside those of the text.

    Args:
        source: model folder, or loaded model, whose tokenizer is used.
        text: a text; the path of a text file (UTF-8); a list of texts; or token ids: a tensor of one dimension, with or
            without that token at its start, or of two, whose rows then stay as they are.
        positions: of the model.

    Raises:
        ColpipeError: there is no tokenizer, no text, or the file cannot be read.
    """
    if tokens < 1:
        raise ColpipeError(f"tokens {tokens}: must be 1 or more")
    if isinstance(text, Tensor) and text.ndim == 2:
        count = min(len(text), -(-tokens // max(text.shape[1], 1)))
        return list(text[[row * len(text) // count for row in range(count)]].split(ROWS)) if count else []
    begin, ids = (_begin(source), text) if isinstance(text, Tensor) else _encoded(source, text)
    if begin is not None and ids[:1].tolist() == [begin]:
        ids = ids[1:]
    if 0 < len(ids) < tokens:
        logging.getLogger(__name__).warning(
            f"the text has {len(ids):,} tokens, {tokens:,} were asked for: all are used"
        )
    length = min(LENGTH, positions) - (begin is not None)
    there, wanted = len(ids) // length, min(tokens, len(ids)) // length
    rows = ids[: there * length].view(-1, length)[[row * there // wanted for row in range(wanted)]]
    rest = min(tokens, len(ids)) - wanted * length
    batches = [*rows.split(ROWS), *([ids[None, len(ids) - rest :]] if rest else [])]
    return batches if begin is None else [pad(batch, (1, 0), value=begin) for batch in batches]


def _begin(source) -> int | None:
    """What the model's tokenizer puts before a text, of token ids that are given without one; None where none is known."""
    try:
        return begin_id(load_tokenizer(folder)) if (folder := tokenizer_folder(source)) else None
    except ColpipeError as error:
        logging.getLogger(__name__).warning(f"{error}; no begin token is put before rows of these ids")
        return None


def _encoded(source, text: str | os.PathLike | Sequence[str]) -> tuple[int | None, Tensor]:
    """(begin token, ids)."""
    texts = _texts(text)
    if (folder := tokenizer_folder(source)) is None:
        raise ColpipeError("the model has no tokenizer beside it; give its folder, or token ids instead of text")
    tokenizer = load_tokenizer(folder)
    ids = [id for ids in encode(tokenizer, texts) for id in (*ids, tokenizer.eos_token_id)]
    return begin_id(tokenizer), torch.tensor(ids)


def _texts(text: str | os.PathLike | Sequence[str]) -> list[str]:
    """The texts that are meant. A string is a file where there is one of that name, or where it looks like a file's name."""
    if isinstance(text, os.PathLike) or (isinstance(text, str) and _is_name(text)):
        text = read_file(Path(text))
    texts = [text] if isinstance(text, str) else list(text)
    if strange := [each for each in texts if not isinstance(each, str)]:
        raise ColpipeError(f"text: {strange[0]!r} is no text; give a string, a list of them, a file or token ids")
    if not any(texts):
        raise ColpipeError("text: is empty, nothing can be fitted on it")
    return [each for each in texts if each]


def read_file(path: Path) -> str:
    """A text file in UTF-8.

    Raises:
        ColpipeError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        said = not_utf8(path, error, error.object[: error.start].count(b"\n") + 1)
    except (OSError, ValueError) as error:
        said = str(error)
    raise ColpipeError(f"{path}: cannot be read as a text file: {said}")


def _is_name(text: str) -> bool:
    return "\n" not in text and len(text) < 256 and (text.endswith(".txt") or os.path.isfile(text))
