"""What a model says of generating text: which ids end it, and settings that can be saved again."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from colpipe.errors import ColpipeError, first_line

FILE = "generation_config.json"
# Without effect where nothing is sampled, or where there is one beam; transformers then refuses to save them.
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAMS = ("early_stopping", "length_penalty")
# What `generate` accepts, of what transformers checks on use only.
USABLE: dict[str, Callable[[Any], bool]] = {
    "do_sample": lambda value: isinstance(value, bool),
    "temperature": lambda value: _is_number(value) and value > 0,
    "top_k": lambda value: _is_count(value),
    "top_p": lambda value: _is_number(value) and 0 <= value <= 1,
    "min_p": lambda value: _is_number(value) and 0 <= value <= 1,
    "typical_p": lambda value: _is_number(value) and 0 < value <= 1,
    "epsilon_cutoff": lambda value: _is_number(value) and 0 <= value < 1,
    "eta_cutoff": lambda value: _is_number(value) and 0 <= value < 1,
    "repetition_penalty": lambda value: _is_number(value) and value > 0,
    "no_repeat_ngram_size": lambda value: _is_count(value),
    "eos_token_id": lambda value: all(map(_is_count, _listed(value))),
}
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_said: set[str] = set()


def generation_config_of(folder: Path) -> GenerationConfig | None:
    """A model folder's generation settings, mended where transformers would refuse to save them; None without the file.

    Raises:
        ColpipeError: the file is not a JSON mapping.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    try:
        return mended(dict(json.loads(path.read_text())), str(path))
    except (OSError, ValueError, TypeError) as error:
        raise ColpipeError(f"{path}: cannot be read: {first_line(error)}") from None


def mended(settings: Mapping, where: str) -> GenerationConfig:
    """Generation settings without those that cannot be used or saved, which are said once: first values that `generate`
    refuses, then flags that have no effect, then all but the special ids."""
    given = {key: value for key, value in settings.items() if key != "transformers_version"}
    known = {key: value for key, value in given.items() if value is None or USABLE.get(key, _any)(value)}
    if ends := [end for end in _listed(given.get("eos_token_id")) if _is_count(end)]:
        known.setdefault("eos_token_id", ends)
    idle = set() if known.get("do_sample") is True else set(SAMPLING)
    idle |= set() if (known.get("num_beams") or 1) > 1 else set(BEAMS)
    idle |= {"pad_token_id"} if (known.get("pad_token_id") or 0) < 0 else set()
    for dropped in (set(), idle, (set(known) - set(IDS)) | idle, set(known)):
        kept = {key: value for key, value in known.items() if key not in dropped}
        try:
            config = GenerationConfig(**kept)
            config.validate(strict=True)
            break
        except Exception:  # of whatever kind the settings provoke
            continue
    lost = {key: value for key, value in given.items() if key not in kept}
    if bad := [end for end in _listed(given.get("eos_token_id")) if not _is_count(end)]:
        lost["eos_token_id"] = bad
    _say(where, lost)
    return config


def _say(where: str, lost: Mapping) -> None:
    if lost and where not in _said:
        _said.add(where)
        values = ", ".join(f"{key} {value!r}" for key, value in lost.items())
        logging.getLogger(__name__).warning(
            "%s: left out %s: transformers would refuse to save or use it", where, values
        )


def _any(value: object) -> bool:
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _listed(value: object) -> list:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int]:
    """Every id that ends a text: the tokenizer's end-of-text, then those of generation settings and configuration.

    Instruct models end a turn with another token than a document, and only `generation_config.json` lists both. Ids beyond
    the embedding, such as a family's default in a smaller vocabulary, are left out; so is what is no id, which is said.
    """
    found = [] if tokenizer is None or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for settings in (model.generation_config, model.config):
        ends = _listed(getattr(settings, "eos_token_id", None))
        if bad := [end for end in ends if not _is_count(end)]:
            _say(f"{model.name_or_path}: {type(settings).__name__}", {"eos_token_id": bad})
        found += [end for end in ends if _is_count(end)]
    rows = model.get_input_embeddings().weight.shape[0]
    return [end for end in dict.fromkeys(found) if end < rows]


def keep_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Put the tokenizer's special ids into a model's configuration and generation settings; a list of ends keeps its ids."""
    ends, own = end_ids(model, tokenizer), model.config.eos_token_id
    if not (isinstance(own, list) and tokenizer.eos_token_id in own):
        model.config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.eos_token_id = ends if len(ends) > 1 else tokenizer.eos_token_id
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id


@contextmanager
def without_own_settings(model: PreTrainedModel) -> Iterator[None]:
    """While this lasts, `generate` does what it is told: transformers fills what a caller leaves open (penalties, bans,
    forced tokens, lengths) from the model's own settings."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
