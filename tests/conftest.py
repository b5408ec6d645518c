"""A tiny world that the tests own: texts, an ancestor of another family, and a study of it all."""

import copy
import hashlib
import json
import os
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from tests import forked

os.environ["HF_HUB_OFFLINE"] = "1"
SECRET = os.environ["HF_TOKEN"] = "hf_neverWrittenAnywhere"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CHECKOUT = Path(__file__).parents[1]
WORDS = "a and built by city for great in is king known music north of old river school small stone the was"
WORDS = WORDS.split()

STUDY = {
    "study": "tiny",
    "architecture": {"family": "gpt2", "vocabulary": 512, "positions": 128},
    "tokenizer": {"train": "stories"},
    "models": {
        "llama": {"source": {"path": "inputs/llama"}},
        "bridge": {"shape": {"layers": 4, "heads": 4, "hidden": 32}},
    },
    "datasets": {
        "articles": {
            "source": {"path": "inputs/articles.json"},
            "reader": "wikipedia-leads",
            "validation": 0.1,
            "test": 0.1,
        },
        "questions": {"source": {"path": "inputs/boolq"}, "reader": "boolq"},
    },
    "corpora": {"stories": {"dataset": "articles"}},
    "instructions": {
        "describe": {"dataset": "articles", "kinds": ["describe"], "max_tokens": 110, "train_rows": 24, "test_rows": 8},
        "boolq": {"dataset": "questions", "max_tokens": 110, "train_rows": 24, "test_rows": 8},
    },
    "ancestors": {"llama": {"model": "llama", "bridge": "bridge", "select": "even"}},
    "chain": {
        "large": {"start": "inherit", "shape": {"layers": 4, "heads": 3, "hidden": 24}},
        "medium": {"start": "inherit", "shape": {"layers": 3, "heads": 2, "hidden": 16}},
        "small": {"start": "inherit", "shape": {"layers": 2, "heads": 1, "hidden": 8}},
    },
    "desnets": {
        "upper": {"shape": {"layers": 4, "heads": 2, "hidden": 16}},
        "lower": {"shape": {"layers": 2, "heads": 2, "hidden": 16}},
    },
    "initialisers": {"nested": {"kind": "linit", "method": "nested"}, "rand": {"kind": "rand"}},
    "budgets": [0, 512],
    "tasks": {
        "boolq": {"instructions": "boolq", "max_new_tokens": 3, "fine_tune": {"steps": 2, "max_length": 110}}
    },
    "perplexity": ["stories"],
    "stages": {
        "pretrain": {"corpus": "stories", "tokens": 1024, "epochs": 1, "max_length": 64},
        "sft": {"instructions": "describe", "steps": 4, "max_length": 250},
        "answers": {"instructions": "describe", "prompts": 12, "max_new_tokens": 4, "batch_size": 2},
        "bridge": {"steps": 4, "max_length": 128},
        "distill": {
            "objective": "reverse_kl",
            "data": ["describe", "stories"],
            "steps": 4,
            "batch_size": 4,
            "max_length": 100,
            "learning_rate": 5e-6,
            "schedule": "constant",
            "warmup": 1,
            "keep": "rouge_l",
        },
        "recover": {"corpus": "stories", "epochs": 1, "batch_size": 2, "max_length": 32, "evaluations": 1},
    },
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items):
    """Slow tests first; what one process should run, because it shares a fixture that takes minutes, or a file's own."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        shared = {"finished", "local"} & set(item.fixturenames)
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(shared.pop() if shared else item.path.name))


def may_separate(*kinds: str) -> bool:
    """Whether this process may make namespaces (`net`, `mount`, `uts`, `pid`): root may, but not in every container."""
    command = ["unshare", *(f"--{kind}" for kind in kinds), "true"]
    return (
        bool(shutil.which("unshare"))
        and not os.geteuid()
        and not subprocess.run(command, capture_output=True).returncode
    )


@pytest.fixture(autouse=True)
def own_environment():
    """What a test, or what it calls, sets in the environment is not left to later tests, whose processes inherit it."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def study() -> dict:
    """A study that is valid where `inputs` is the working directory's; a copy to change at will."""
    return copy.deepcopy(STUDY)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def make_inputs(folder: Path) -> Path:
    """Folder with articles.json, boolq/ and llama/, all made here."""
    chance = random.Random(0)

    def sentence(length: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(length)).capitalize() + "."

    articles = {}
    for number in range(300):
        title = f"{chance.choice(WORDS)} {number}".title()
        articles[title] = {
            "title": title,
            "extract": f"{title} is {sentence(8).lower()} {sentence(14)}",
            "description": sentence(3)[:-1],
        }
    (folder / "articles.json").write_text(json.dumps(articles))
    (folder / "boolq").mkdir()
    for name, count in (("dev.jsonl", 20), ("combined.jsonl", 80)):
        rows = [
            {"question": f"is {sentence(3).lower()[:-1]}", "passage": sentence(12), "answer": chance.random() < 0.6}
            for _ in range(count)
        ]
        (folder / "boolq" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_llama(folder / "llama", [article["extract"] for article in articles.values()])
    return folder


def make_tokenizer(texts: list[str], vocabulary: int):
    """A byte-level BPE tokenizer with one special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", pad_token="</s>")


def make_beginning_tokenizer(texts: list[str], vocabulary: int, end: bool = False):
    """The same with a special token more, `<s>`, that it puts before a text of itself; and `</s>` behind it, with `end`."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(texts, vocabulary - 1)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<s>", "</s>")]
    single = "<s> $A </s>" if end else "<s> $A"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    return tokenizer


def make_word_tokenizer():
    """A tokenizer of whole words, whose special tokens are words: it cannot keep their text as text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"</s>": 0, "<unk>": 1, **{word: 2 + number for number, word in enumerate(sorted({*WORDS, "b"}))}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>")


def write_tokens(folder: Path, split: str, ids) -> None:
    """A split of a prepared corpus, one document of these token ids (N,)."""
    import numpy as np

    from colpipe.data.shards import NOTHING, Piece, append

    append(folder, split, NOTHING, Piece(ids, np.array([len(ids)]), np.array([4 * len(ids)])))


def make_llama(folder: Path, texts: list[str]) -> None:
    """A random Llama with grouped queries and a vocabulary of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(texts, 300)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_gpt2(folder: Path, layers: int, heads: int, hidden: int, seed: int, vocabulary: int = 50, positions: int = 16):
    """A GPT-2 whose every tensor is random, biases and gains too, saved as a stock folder."""
    import torch

    from colpipe.config.parts import Architecture, Shape
    from colpipe.hf.models import random_model

    architecture = Architecture(vocabulary=vocabulary, positions=positions)
    model = random_model(architecture.configure(Shape(layers=layers, heads=heads, hidden=hidden), 0), seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return model.eval()


def make_model(folder: Path, architecture, shape, seed: int):
    """A model of any family whose every tensor is random, saved as a stock folder: gains around 1, all others around 0."""
    import torch

    from colpipe.hf.models import random_model

    model = random_model(architecture.configure(shape, 0), seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
            parameter.copy_(torch.randn_like(parameter) * 0.2 + gain)
    model.save_pretrained(folder)
    return model.eval()


def make_wheel(index: Path) -> tuple[dict[str, str], str]:
    """A local package index with the wheel sample-data 1.0: the environment that makes pip use it, the wheel's sha256."""
    content = index.with_name("content")
    content.mkdir(parents=True)
    (content / "rows.jsonl").write_text('{"text": "hello"}\n')
    (content / "other.bin").write_text("no")
    environment, wheel = pack_wheel(index, content)
    return environment, hashlib.sha256(wheel.read_bytes()).hexdigest()


def pack_wheel(index: Path, content: Path, package: str = "sample_data") -> tuple[dict[str, str], Path]:
    """The same with the files of a folder in its package: the environment, the wheel. An index can have several."""
    index.mkdir(parents=True, exist_ok=True)
    path = index / f"{package}-1.0-py3-none-any.whl"
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for file in sorted(file for file in content.rglob("*") if file.is_file()):
            wheel.write(file, f"{package}/{file.relative_to(content).as_posix()}")
        for name, text in about.items():
            wheel.writestr(f"{package}-1.0.dist-info/{name}", text)
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}, path


def checkout(home: Path, inputs: Path, study: dict) -> Path:
    """A copy of the checkout with inputs/ and my-study.yaml."""
    for name in ("Snakefile", "workflow", "colpipe", "config", "envs"):
        copy_one = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        copy_one(CHECKOUT / name, home / name)
    shutil.copytree(inputs, home / "inputs")
    (home / "my-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return home


def snakemake(workdir: Path, *arguments: str, checkout: Path = CHECKOUT, check: bool = True, **more):
    """Run the workflow of a checkout in a working directory, on two cores."""
    command = [*forked.python("snakemake"), "-m", "snakemake", "--snakefile", str(checkout / "Snakefile")]
    more = {"env": forked.environment(), "capture_output": True, "text": True, **more}
    result = subprocess.run([*command, "--cores", "2", *arguments], cwd=workdir, **more)
    if check and result.returncode:
        raise AssertionError(f"snakemake {' '.join(arguments)} failed:\n{result.stdout}\n{result.stderr}")
    return result


def open_job(*spec, **more):
    """A job at work, by the fields of its spec; to be closed."""
    from colpipe.jobs.job import Job, JobSpec

    return Job(JobSpec(*spec, **more)).__enter__()


class Killed(Exception):
    """A job was cut off."""


def counting(function: Callable, kill_at: int = -1) -> Callable:
    """A function that counts its calls, in `calls`, and raises `Killed` instead of one of them; -1: of none."""

    def call(*arguments):
        counted.calls += 1
        if counted.calls == kill_at:
            raise Killed
        return function(*arguments)

    counted: Any = call
    counted.calls = 0
    return counted


def kill(job, after: int | None) -> None:
    """Have a training raise `Killed` as soon as it has measured a step; None: never."""
    measure = job.measure

    def measured(**values):
        measure(**values)
        if values["step"] == after:
            raise Killed

    job.measure = measured


def process_of(stage: str, *arguments: object, **variables: str) -> dict:
    """Command and environment of one stage by hand, as `subprocess` takes them."""
    command = [*forked.python("stages"), "-m", f"colpipe.stages.{stage}", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **variables}
    return {"args": command, "env": environment}


def stage(name: str, *arguments: object, cwd: Path | None = None, check: bool = True, **more):
    """Run one stage by hand."""
    process = process_of(name, *arguments, **more.pop("env", {}))
    result = subprocess.run(**process, cwd=cwd, capture_output=True, text=True, **more)
    if check and result.returncode:
        raise AssertionError(f"{name} failed:\n{result.stdout}\n{result.stderr}")
    return result
