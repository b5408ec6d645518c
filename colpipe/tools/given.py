"""What `colpipe init` is given, read and checked before anything runs: a model, a text, instructions (no torch here)."""

import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import yaml

from colpipe.architectures.families import FAMILIES, variant_of
from colpipe.config.defaults import read_architecture
from colpipe.config.folders import model_folder, read_mapping
from colpipe.config.parts import Architecture, Dataset, Shape, Source, reader_module
from colpipe.config.stages import FIT_TOKENS
from colpipe.cost.inputs import BYTES_A_TOKEN
from colpipe.data.formats import COMPRESSED, TABLES, format_of
from colpipe.data.prompts import prompt
from colpipe.data.records import read, split_of
from colpipe.errors import ColpipeError, first_line, near

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")
SAMPLE = 2**18  # characters that are tokenised, to know how long a token is
LEAST_SAMPLE = 1000  # characters, which say more than a mean over all texts
HELD_OUT = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.03,
    0.06,
    0.1,
)  # shares of the documents for validation, and as much for testing
LEAST_HELD_OUT = 4096  # tokens of each, where a tenth of the text has them
KEPT = 0.98  # of the rows of instructions: the longest are left out
LEAST_ROWS = 50
SPARE = 1.1  # tokens are estimated from a sample


@dataclass(frozen=True)
class Model:
    """An ancestor that is on this machine: its source as a study writes it, and what its config.json says."""

    name: str
    source: dict[str, str]
    folder: Path
    architecture: Architecture
    whole: Shape
    chats: bool
    """whether its tokenizer has a chat template"""


@dataclass(frozen=True)
class Text:
    """A text, tokens of its training split by estimate; `held_out` is the share of its documents that validation has, and
    testing."""

    path: Path
    train: float
    bytes_a_token: float
    held_out: float


@dataclass(frozen=True)
class Rows:
    """Instructions: the longest row that is kept, and the longest answer that is asked for, tokens."""

    path: Path
    longest: int
    answer: int


def read_model(given: str) -> Model:
    """A folder, or a repository in the Hugging Face cache.

    Raises:
        ColpipeError: it is neither, has no config.json, tokenizer or weights, or is of a family without a table.
    """
    folder, source = Path(given), {"path": given}
    if folder.suffix == ".gguf" and folder.is_file():
        settings = shlex.quote(f'{{"path": "{given}"}}')
        raise ColpipeError(
            f"{given}: is a GGUF file; make a model folder of it first: python -m colpipe.stages.fetch_model --settings "
            f"{settings} --output {shlex.quote(folder.stem)}"
        )
    is_path = given.startswith(("/", "./", "../")) or given.endswith("/")
    if not folder.exists() and not is_path and re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        folder, source = _cached(given)
    if not folder.is_dir():
        raise ColpipeError(f"{given}: is no folder (relative paths start at {Path.cwd()}){_near_by(folder)}")
    if not (folder / "config.json").is_file():
        raise ColpipeError(f"{given}: has no config.json; give the folder that save_pretrained wrote")
    found = read_mapping(folder / "config.json")
    if found.get("model_type") not in FAMILIES:
        raise ColpipeError(
            f"{given}/config.json: model_type {found.get('model_type')!r} is none of {', '.join(FAMILIES)}; of another "
            "family only a study with a bridge can be made, by hand (config/README.md)"
        )
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ColpipeError(
            f"{given}: has no tokenizer ({', '.join(TOKENIZERS)}); save it there: tokenizer.save_pretrained(…)"
        )
    plain = any((folder / name).is_file() for name in TOKENIZERS[:2])
    if not plain and (said := _missing("sentencepiece", "sentencepiece")):
        raise ColpipeError(
            f"{given}: its tokenizer is tokenizer.model alone, which is not read without a package{said}"
        )
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise ColpipeError(
            f"{given}: has no weights in safetensors ({' or '.join(WEIGHTS)}); model.save_pretrained writes them"
        )
    architecture = Architecture(**read_architecture(folder))
    whole = Shape.of(variant_of(FAMILIES[architecture.family], found).sizes(found))
    name = name_of(Path(given).resolve() if "path" in source else Path(given), "model")
    in_settings = read_mapping(folder / "tokenizer_config.json").get("chat_template")
    chats = bool(in_settings) or (folder / "chat_template.jinja").is_file()
    return Model(name, source, folder, architecture, whole, chats)


def _missing(module: str, package: str) -> str:
    """How to install an optional package that is not here; empty where it is."""
    return "" if find_spec(module) else f" (pip install {package})"


def _near_by(folder: Path) -> str:
    """Folders beside one that is not there whose names are like it; empty where there are none."""
    beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    return f"; {meant}" if (meant := near(folder.name, beside)) else ""


def _cached(repository: str) -> tuple[Path, dict[str, str]]:
    """Where a repository lies in the Hugging Face cache, and the source that names this revision of it."""
    folder = model_folder(repository.replace("/", "-"), Source(hub=repository))
    if folder is None:
        raise ColpipeError(
            f"{repository}: is no folder here, and is not in the Hugging Face cache; fetch it: hf download {repository}"
            f"{_near_by(Path(repository))}"
        )
    return folder, {"hub": repository, "revision": folder.name}


def read_text(path: Path, model: Path) -> Text:
    """A text's tokens, by a sample, and what share of its documents is held out.

    Raises:
        ColpipeError: it is no text, or too short for a fit, or has too few documents to hold some out.
    """
    documents = [
        (record["group"], len(record["text"].encode())) for record in _records(path, "text") if record["text"].strip()
    ]
    size = sum(length for _, length in documents)
    if not size:
        raise ColpipeError(f"{path}: holds no text")
    ratio = bytes_a_token(path, model)
    needed = SPARE * FIT_TOKENS / (1 - 2 * HELD_OUT[-1])
    if size / ratio < needed:
        raise ColpipeError(
            f"{path}: holds about {size / ratio:,.0f} tokens ({size:,} bytes); a fit needs {needed:,.0f} (about "
            f"{needed * ratio:,.0f} bytes)"
        )
    for share in HELD_OUT:
        held = {"validation": 0, "test": 0, "train": 0}
        for group, length in documents:
            held[split_of(group, share, share)] += length
        fewest = min(held["validation"], held["test"]) / ratio
        if fewest >= LEAST_HELD_OUT or (share == HELD_OUT[-1] and fewest >= LEAST_HELD_OUT / 8):
            return Text(path, held["train"] / ratio, ratio, share)
    raise ColpipeError(
        f"{path}: has {len(documents):,} documents, of which too little can be held out to judge the models on; put blank "
        "lines between documents, one for each paragraph if need be"
    )


def bytes_a_token(path: Path, model: Path) -> float:
    """Of a text's beginning; as in most texts, where it is short or the tokenizer's files want transformers."""
    fast = model / "tokenizer.json"
    if not fast.is_file():
        return BYTES_A_TOKEN
    from tokenizers import Tokenizer  # spared those who only ask for help

    try:
        tokenizer = Tokenizer.from_file(str(fast))
    except Exception as error:  # what the library raises
        raise ColpipeError(f"{fast}: cannot be read as a tokenizer ({first_line(error)}); save it again") from None
    characters = tokens = size = 0
    for record in _records(path, "text"):
        text = record["text"][: SAMPLE - characters]
        characters += len(text)
        size += len(text.encode())
        tokens += len(tokenizer.encode(text, add_special_tokens=False).ids) + 1
        if characters >= SAMPLE:
            break
    return size / tokens if characters >= LEAST_SAMPLE else BYTES_A_TOKEN


def read_instructions(path: Path, ratio: float) -> Rows:
    """A file of {instruction, input, output} rows; nearly all of them are kept.

    Args:
        ratio: bytes a token.

    Raises:
        ColpipeError: it cannot be read, a row lacks a field, or there are too few to hold some out.
    """
    lengths = []
    for record in _records(path, "alpaca"):
        asked, answer = prompt(record["instruction"], record["input"]), record["output"]
        lengths.append((len((asked + answer).encode()) / ratio + 1, len(answer.encode()) / ratio + 1))
    if len(lengths) < LEAST_ROWS:
        raise ColpipeError(
            f"{path}: has less than {LEAST_ROWS} rows; some are held out, and the rest would teach nothing"
        )
    whole, answers = (sorted(each)[int(KEPT * len(each))] for each in zip(*lengths, strict=True))
    return Rows(path, _in_steps(SPARE * whole, 32), _in_steps(SPARE * answers, 8))


def _in_steps(tokens: float, step: int) -> int:
    return -(-round(tokens) // step) * step


def _records(path: Path, reader: str) -> Iterator[dict]:
    """Of one file, as the study will read them; what is wrong with it is said of the user's own path."""
    if not path.is_file():
        raise ColpipeError(f"{path}: is no file (relative paths start at {Path.cwd()})")
    if not path.stat().st_size:
        raise ColpipeError(f"{path}: is empty")
    known = getattr(import_module(reader_module(reader)), "FORMATS", TABLES)
    if format_of(path.name)[0] not in known:
        raise ColpipeError(
            f"{path}: its name has to end in one of {', '.join(known)} (and {', '.join(COMPRESSED)} after that)"
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / path.name).symlink_to(path.resolve())
        try:
            yield from read(Dataset(source=Source(path=str(path)), reader=reader), Path(folder))
        except ColpipeError as error:
            said = first_line(error).replace(f"{folder}/{path.name}", str(path)).replace(folder, str(path))
            raise ColpipeError(said) from None


def name_of(path: Path, kind: str) -> str:
    """A name that a part of a study can have, by a file or folder; what YAML reads as no word gets its kind before it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip("-._") or kind
    return name if yaml.safe_load(name) == name else f"{kind}-{name}"
