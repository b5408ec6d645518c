"""What a job reads, as far as it is there: the sizes of its models and the lengths of its rows (no torch here)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from colpipe.architectures.families import FAMILIES, variant_of
from colpipe.architectures.family import Family
from colpipe.architectures.flops import BYTES, Forward, forward, unknown_forward
from colpipe.config.constants import VALIDATION_ITEMS
from colpipe.config.folders import model_folder, read_mapping
from colpipe.config.layout import Layout
from colpipe.config.parts import Architecture, Shape
from colpipe.data.prompts import prompt
from colpipe.data.rows import PREPARED
from colpipe.jobs.artifacts import MANIFEST

EXACT, AT_MOST, ASSUMED = "", "≤", "?"  # how sure a number is, the surest first
UNKNOWN = 8_000_000_000  # parameters of an ancestor of another family that is not fetched yet
LARGER = 2  # times as many parameters as its first member an ancestor has that is not fetched yet
UNSEEN = 100_000_000  # tokens of data that are not prepared yet
SAMPLE = 500  # rows of instructions that are looked at for their lengths
BYTES_A_TOKEN = 4.0  # where no prepared corpus says how many


def least_sure(*bounds: str) -> str:
    return max(bounds, key=(EXACT, AT_MOST, ASSUMED).index, default=EXACT)


class SizedModel(NamedTuple):
    """What is known of a model before it is loaded."""

    parameters: int
    forward: Forward
    family: Family | None = None
    sizes: dict[str, int] | None = None
    tied: bool = False
    bound: str = EXACT
    precision: str = "float32"

    @property
    def weights(self) -> int:
        """Bytes of its weights where it is only read."""
        return BYTES[self.precision] * self.parameters

    @property
    def vocabulary(self) -> int:
        return self.sizes["vocabulary"] if self.sizes else 0


def model_in(layout: Layout, folder: str) -> SizedModel:
    """The model in a folder that may not be there yet."""
    study, parts = layout.study, Path(layout.declared(folder)).parts[2:]
    match parts:
        case ("desnets", _, name, *_):
            return of_shape(study.architecture, study.desnets[name].shape)
        case ("bridges" | "ordered", ancestor):
            name = study.ancestors[ancestor].bridge or study.ancestors[ancestor].model
        case (*_, name):  # a member, a model that was pre-trained or fine-tuned, or a fetched one
            name = next((model for model, path in layout.fetched.items() if path == folder), name)
    shape = (study.models.get(name) or study.chain[name]).shape
    if shape:
        return of_shape(study.architecture, shape)
    staged = Path(layout.fetched[name])
    found = staged if (staged / MANIFEST).is_file() else model_folder(name, study.models[name].source)
    return published(found) if found else _not_here(layout, name)


def _not_here(layout: Layout, name: str) -> SizedModel:
    """A model that is on no disk of this machine: the chain's own ancestor is a few times as large as its first member."""
    study = layout.study
    chains = [name_ for name_, entry in study.ancestors.items() if entry.model == name and not entry.bridge]
    first = max((study.parameters(study.chain[study.members(each)[0]].shape) for each in chains), default=0)
    size = LARGER * first or UNKNOWN
    return SizedModel(size, unknown_forward(size), bound=ASSUMED)


def of_shape(architecture: Architecture, shape: Shape) -> SizedModel:
    """A model of the chain's architecture."""
    sizes = architecture.sizes(shape)
    return of_sizes(architecture.table, sizes, architecture.is_tied)


def of_sizes(family: Family, sizes: dict[str, int], tied: bool) -> SizedModel:
    return SizedModel(family.parameters(sizes, tied), forward(family, sizes), family, sizes, tied)


def published(folder: Path) -> SizedModel:
    """A model that was not made here, from its `config.json`; from the sizes of its files where its family has no table."""
    config = read_mapping(folder / "config.json")
    if not config:
        return SizedModel(UNKNOWN, unknown_forward(UNKNOWN), bound=ASSUMED)
    if family := FAMILIES.get(config.get("model_type")):
        return of_sizes(variant_of(family, config), family.sizes(config), family.is_tied(config))
    half = (config.get("dtype") or config.get("torch_dtype")) in ("bfloat16", "float16")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) // (2 if half else 4)
    return SizedModel(size, unknown_forward(size), bound=ASSUMED)


@dataclass(frozen=True)
class Data:
    """Rows of a data set: how many, and the (prompt, answer) tokens of some of them."""

    rows: float
    lengths: tuple[tuple[float, float], ...]
    bound: str = EXACT

    def within(self, length: int) -> "Data":
        """Rows that are longer than `length` are left out; where that would be all, they are as long as they may be."""
        kept = tuple(pair for pair in self.lengths if sum(pair) <= length)
        if not kept:
            longest_pair = ((length // 2, length - length // 2),)
            return replace(self, lengths=longest_pair, bound=least_sure(AT_MOST, self.bound))
        share = len(kept) / len(self.lengths) if self.lengths else 0
        return replace(self, rows=self.rows * share, lengths=kept)


def corpus(layout: Layout, name: str, split: str, length: int, tokens: int | None = None) -> Data:
    """Blocks of a corpus; every token of one but the first carries loss, and that may be its begin token."""
    there, bound = tokens_of(layout, name, split)
    if bound == ASSUMED and tokens and split == "train":
        there, bound = tokens, EXACT
    whole = there // max(1, length - begins(layout))
    return Data(min(whole, tokens // length if tokens else whole), ((1, length - 1),), bound)


def begins(layout: Layout) -> int:
    """Begin tokens that the chain's tokenizer puts before a text, as a prepared corpus says: 1 or 0."""
    manifests = (_manifest(Path(layout.data(name))) for name in layout.study.corpora)
    return int(any("begin" in found for found in manifests if found))


def whole_split(layout: Layout, name: str, split: str, longest_block: int, tokens: int | None = None) -> Data:
    """All of a split of a corpus, or so many tokens of it, in blocks that are no longer than it."""
    there, _ = tokens_of(layout, name, split)
    length = max(2, min(longest_block, int(there) + begins(layout)))
    return corpus(layout, name, split, length, tokens and max(tokens, length))


def tokens_of(layout: Layout, name: str, split: str) -> tuple[float, str]:
    """(tokens, bound) of a split of a corpus: as it is there, or will be made."""
    if found := _counts(Path(layout.data(name))):
        return found[split]["tokens"], EXACT
    entry = layout.study.corpora[name]
    if entry.data:
        parts = {part: tokens_of(layout, part, split) for part in entry.shares}
        return min(parts[part][0] / share for part, share in entry.shares.items()), least_sure(
            *(bound for _, bound in parts.values())
        )
    if entry.written:
        if split == "train":
            return entry.written.tokens, EXACT
        (ours, bound), (train, _) = (tokens_of(layout, entry.written.openings, each) for each in (split, "train"))
        return entry.written.tokens * ours / train, bound
    dataset = layout.study.datasets[entry.dataset]
    shares = {"validation": dataset.validation, "test": dataset.test, "train": 1 - dataset.validation - dataset.test}
    return shares[split] * _assumed_tokens(layout, entry.dataset), ASSUMED


def instructions(layout: Layout, name: str, split: str, foreign: bool = False) -> Data:
    """Rows of instructions: as they are where they are prepared, else the most that the settings let through.

    Args:
        foreign: read with another tokenizer than the chain's.
    """
    settings, folder = layout.study.instructions[name], Path(layout.data(name))
    path, counts = folder / f"{split}.jsonl", _counts(folder)
    if not counts or not path.exists():
        limit = settings.train_rows if split == "train" else settings.test_rows
        rows = limit or _assumed_tokens(layout, settings.dataset) // settings.max_tokens
        prompt_tokens = settings.max_tokens // 2
        return Data(rows, ((prompt_tokens, settings.max_tokens - prompt_tokens),), AT_MOST if limit else ASSUMED)
    rows, stamp = counts[split]["rows"], path.stat().st_mtime_ns
    if foreign:
        return Data(rows, _lengths(path, stamp, BYTES_A_TOKEN, foreign=True), ASSUMED)
    return Data(rows, _lengths(path, stamp, _bytes_a_token(layout), begins(layout)))


def texts(layout: Layout, prompts: Sequence[str]) -> Data:
    """Prompts that a study writes out."""
    bytes_a_token, begin = _bytes_a_token(layout), begins(layout)
    lengths = tuple((begin + max(1, len(text.encode()) / bytes_a_token), 1) for text in prompts)
    return Data(len(prompts), lengths, AT_MOST)


def _assumed_tokens(layout: Layout, dataset: str) -> float:
    """Tokens of a data set that is not prepared yet: by the bytes of its files where they are here."""
    path = layout.study.datasets[dataset].source.path
    files = [Path(path), *Path(path).rglob("*")] if path else []
    size = sum(file.stat().st_size for file in files if file.is_file())
    return size / BYTES_A_TOKEN or UNSEEN


@lru_cache(maxsize=64)
def _lengths(
    path: Path, stamp: int, bytes_a_token: float, begin: int = 0, foreign: bool = False
) -> tuple[tuple[float, float], ...]:
    """(prompt, answer) tokens of the first rows of a file, by their bytes, or of prompts that are ids by their number."""

    def asked(row: dict) -> float:
        if PREPARED in row and not foreign:
            return len(row[PREPARED])
        return begin + len(prompt(row["instruction"], row["input"]).encode()) / bytes_a_token

    return tuple((asked(row), len(row["output"].encode()) / bytes_a_token + 1) for row in sample_rows(path, stamp))


@lru_cache(maxsize=64)
def sample_rows(path: Path, stamp: int) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(SAMPLE), strict=False)]


def _counts(folder: Path) -> dict | None:
    """What a prepared data set's manifest says of its splits; None where it is not there."""
    return (_manifest(folder) or {}).get("counts")


def _manifest(folder: Path) -> dict | None:
    """A prepared data set's; None where it is not there."""
    try:
        stamp = (folder / "manifest.json").stat().st_mtime_ns
    except OSError:
        return None
    return _read_manifest(folder, stamp)


@lru_cache(maxsize=64)
def _read_manifest(folder: Path, stamp: int) -> dict | None:
    try:
        return json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):  # being replaced, or damaged: the stage that reads it says so
        return None


def _bytes_a_token(layout: Layout) -> float:
    for name in layout.study.corpora:
        if found := _counts(Path(layout.data(name))):
            return found["train"]["bytes"] / found["train"]["tokens"]
    return BYTES_A_TOKEN


def mixed(
    layout: Layout, names: Sequence[str], split: str, length: int, weights: Mapping[str, float] | None = None
) -> list[Data]:
    """Corpora and instructions by name, as a training reads them: all of each, or by weights."""
    study = layout.study
    found = [
        corpus(layout, name, split, length)
        if name in study.corpora
        else instructions(layout, name, split).within(length)
        for name in names
    ]
    if not weights:
        return found
    if split == "validation":
        found = [replace(each, rows=min(VALIDATION_ITEMS, each.rows)) for each in found]
    most = min(each.rows / weights[name] for each, name in zip(found, names, strict=True))
    return [replace(each, rows=most * weights[name]) for each, name in zip(found, names, strict=True)]


def longest(data: Iterable[Data], count: int) -> float:
    """The longest of so many rows that are drawn at random: what all of a batch are padded to. A mean."""
    weighted = sorted((sum(pair), each.rows / len(each.lengths)) for each in data for pair in each.lengths)
    whole, seen, mean = sum(weight for _, weight in weighted), 0.0, 0.0
    for length, weight in weighted:
        before, seen = seen, seen + weight
        mean += length * ((seen / whole) ** count - (before / whole) ** count) if whole else 0.0
    return mean


def answer_tokens(data: Iterable[Data]) -> float:
    """Mean answer tokens of a row."""
    pairs = [(answer, each.rows / len(each.lengths)) for each in data for _, answer in each.lengths]
    whole = sum(weight for _, weight in pairs)
    return sum(answer * weight for answer, weight in pairs) / whole if whole else 0.0
