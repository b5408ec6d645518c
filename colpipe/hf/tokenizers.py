"""Loading stock tokenizers, without what loading a model needs."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from colpipe.config.folders import rows_problem
from colpipe.errors import ColpipeError, first_line


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model, with a padding token.

    Raises:
        ColpipeError: there is none, or it has no end-of-text token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        raise ColpipeError(f"{folder}: holds no tokenizer that can be loaded: {first_line(error)}") from None
    if tokenizer.eos_token is None:
        raise ColpipeError(f"{folder}: its tokenizer has no end-of-text (eos) token")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def require_rows(tokenizer: PreTrainedTokenizerBase, rows: int, where: str) -> None:
    """Refuse an embedding that has no row for some of a tokenizer's ids.

    Args:
        rows: of the embedding.
        where: they are said: a key, or a model's folder.

    Raises:
        ColpipeError: names both sizes.
    """
    entries = max(tokenizer.get_vocab().values(), default=-1) + 1
    if problem := rows_problem(rows, entries, where, tokenizer.name_or_path):
        raise ColpipeError(problem)
