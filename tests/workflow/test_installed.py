"""colpipe installed as a package, in a folder that is no checkout: its command runs studies by its own Snakefile."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from colpipe.config.parts import Architecture, Shape
from tests.conftest import CHECKOUT, WORDS, make_model, make_tokenizer
from tests.unit.export.llama_cpp import ask


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder for PYTHONPATH with the wheel of this checkout in it."""
    home = tmp_path_factory.mktemp("installed")
    for name in ("colpipe", "snakemake_logger_plugin_colpipe", "workflow", "config", "envs"):
        shutil.copytree(CHECKOUT / name, home / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, home / "source")
    offline = ["--quiet", "--no-deps", "--no-index"]
    pip = [sys.executable, "-m", "pip"]
    wheel = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(home), str(home / "source")]
    subprocess.run(wheel, check=True)
    install = [*pip, "install", *offline, "--target", str(home / "packages"), *map(str, home.glob("*.whl"))]
    subprocess.run(install, check=True)
    shutil.rmtree(home / "source")
    return home / "packages"


@pytest.fixture
def colpipe(package, tmp_path):
    """Call the command in an empty folder."""

    def call(*words: str, fails: bool = False) -> str:
        environment = {**os.environ, "PYTHONPATH": str(package)}
        command = [sys.executable, "-P", "-m", "colpipe", *words]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert bool(found.returncode) == fails, found.stdout + found.stderr
        return found.stdout + found.stderr

    return call


@pytest.fixture
def tiny(inputs, study, tmp_path):
    """The tests' study and its inputs, in the folder where the command is called."""
    (tmp_path / "inputs").symlink_to(inputs)
    (tmp_path / "my-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


def test_it_runs_by_its_own_rules(colpipe, tiny, package, tmp_path):
    assert f"rules of {package}/colpipe/checkout" in colpipe("doctor")
    target = ("run", "my-study.yaml", "results/tiny/tokenizer/manifest.json", "--cores", "1")
    colpipe(*target)
    assert (tmp_path / "results/tiny/tokenizer/tokenizer.json").exists()
    assert "Traceback" not in (tmp_path / "results/tiny/logs/train_tokenizer.log").read_text()
    colpipe(*target)
    assert (tmp_path / "results/tiny/work/tokenizer/events.jsonl").read_text().count(
        "done in"
    ) == 1  # the second does nothing
    assert "1 train_tokenizer" in colpipe("show", "results/tiny")


def test_all_of_a_study_is_planned(colpipe, tiny):
    assert "evaluate" in colpipe("run", "my-study.yaml", "-n")


def test_its_profile_is_found(colpipe, tiny):
    """And nothing runs that another profile would leave out."""
    assert "workflow/profiles/default for setting default" in colpipe("run", "my-study.yaml", "--unlock")


@pytest.mark.slow
def test_from_a_model_and_a_text_to_llama_cpp(colpipe, tmp_path):
    """The README's way, with a model and a text made here; with a real one and the demo's articles, where COLPIPE_MODEL and
    COLPIPE_LEADS say where they are."""
    model, leads, text = *(os.environ.get(name) for name in ("COLPIPE_MODEL", "COLPIPE_LEADS")), "text.txt"
    if leads:
        articles = list(json.loads(Path(leads).read_text()).values())[::12]
        (tmp_path / text).write_text("\n\n".join(article["extract"] for article in articles))
    else:
        model = "model"
        documents = [" ".join(random.Random(number).choices(WORDS, k=40)) for number in range(2500)]
        (tmp_path / text).write_text("\n\n".join(documents))
        shape = Shape(layers=6, heads=4, kv_heads=2, head_dim=16, hidden=64, ffn=160)
        make_model(tmp_path / model, Architecture(family="llama", vocabulary=300, positions=256), shape, 0)
        make_tokenizer(documents[:50], 300).save_pretrained(tmp_path / model)
    count = parameters(tmp_path / model)
    size = f"{round(0.8 * count / 1000)}k"
    said = colpipe("init", model, "--text", text, "--sizes", size, "--hours", "0.01", "--name", "mine")
    run = said.splitlines()[-1].split()
    assert run[:3] == ["colpipe", "run", "mine.yaml"]
    study = (tmp_path / "mine.yaml").read_text()
    assert len([line for line in study.splitlines() if line.split("#")[0].strip()]) <= 40
    if leads:  # ten steps are the fewest that init writes, and minutes of a real model
        changed = yaml.safe_load(study)
        changed["stages"]["distill"] |= {"steps": 3, "evaluations": 1}
        changed["stages"]["recover"] |= {"evaluations": 1}
        changed["stages"] |= {stage: {"tokens": 4096} for stage in ("order", "fit")}
        changed["stages"]["export"]["types"] = ["q8_0"]
        changed["budgets"] = [2048]
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    colpipe(*run[1:])
    (card,) = (tmp_path / "results/mine/published/desnets").rglob("README.md")
    assert parameters(card.parent) == pytest.approx(0.8 * count, rel=0.011)
    shown = colpipe("show", "results/mine")
    assert str(card.parent.relative_to(tmp_path)) in shown and size in shown
    assert re.search(r"results/mine/exported/\S+-q8_0\.gguf  [\d.]+ MB", shown)
    colpipe("export", str(card.parent), "--to", "gguf", "--name", "mine", "--types", "q8_0")
    prompt = {"prompt": "The river is", "n_predict": 24, "temperature": 0}
    (answer,) = ask(tmp_path / "gguf/mine-q8_0.gguf", ("/completion", prompt))
    assert answer["tokens_predicted"] or answer["tokens_evaluated"]
    assert not leads or len(re.findall(r"[a-z]+", answer["content"])) >= 8
    print(f"The river is{answer['content']}")


def parameters(folder: Path) -> int:
    return sum(value.numel() for value in load_file(folder / "model.safetensors").values())
