"""What goes with a model: generation settings and tokenizer of the model that it was made from."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MethodType
from typing import Any

from colpipe.learngene.tokenizers import tokenizer_folder
from colpipe.learngene.weights import TOKENIZER_FILES, copy_companions

Sources = Mapping[str, Any]  # name → folder or loaded model, first the one whose companions count


def accompany(model, sources: Sources):
    """The model with the first source's generation settings, and a `save_pretrained` that writes the tokenizer too."""
    from colpipe.hf.generation_config import generation_config_of, mended  # seconds, spared those who only write

    source = next(iter(sources.values()))
    if _is_folder(source):
        settings = generation_config_of(Path(source))
    else:
        settings = mended(source.generation_config.to_diff_dict(), source.name_or_path or type(source).__name__)
    model.generation_config = settings or model.generation_config
    bring_tokenizer(model, next(filter(tokenizer_folder, sources.values()), None))
    return model


def write_companions(sources: Sources, folder: Path) -> None:
    """Generation settings of the first source, and the tokenizer of the first that has one."""
    source = next(iter(sources.values()))
    if _is_folder(source):
        copy_companions(Path(source), folder)
    else:
        from colpipe.hf.generation_config import mended

        mended(source.generation_config.to_diff_dict(), source.name_or_path).save_pretrained(folder)
    for each in sources.values():
        copy_tokenizer(each, folder)


def copy_tokenizer(source, folder: Path) -> None:
    """Copy the tokenizer and chat template of a model folder, or of the folder that a loaded model came from; nothing where
    a tokenizer is there already."""
    if (home := tokenizer_folder(source)) and tokenizer_folder(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        copy_companions(home, folder, TOKENIZER_FILES)


def bring_tokenizer(model, source) -> None:
    """Have a model in memory write the tokenizer of its source too, whenever it is saved.

    `model.save_pretrained` becomes a method of this one object that copies the files, where no tokenizer is there yet, and
    goes on to that of its class: the model stays of a stock class, and a copy of it saves itself.
    """
    if home := tokenizer_folder(source):
        model.tokenizer_source = str(home)
        model.save_pretrained = MethodType(save_pretrained, model)


def save_pretrained(self, save_directory, *arguments, **more) -> None:
    """As the class has it, with the tokenizer."""
    if more.get("is_main_process", True):
        if tokenizer_folder(self.tokenizer_source) is None:
            logging.getLogger(__name__).warning(
                "%s: saved without a tokenizer: that of %s is gone", save_directory, self.tokenizer_source
            )
        copy_tokenizer(self.tokenizer_source, Path(save_directory))
    type(self).save_pretrained(self, save_directory, *arguments, **more)


def _is_folder(source) -> bool:
    return isinstance(source, str | os.PathLike)
