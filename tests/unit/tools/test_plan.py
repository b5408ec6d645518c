"""What is documented of planning by hand works as it is written."""

import json
import re
import shlex

import pytest

from colpipe.__main__ import main
from colpipe.config.parts import Architecture, Shape
from tests.conftest import CHECKOUT

PAGES = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md", "colpipe/tools/plan.py")]
PAGES += sorted((CHECKOUT / "docs").glob("*.md"))
COMMANDS = re.findall(r"colpipe plan [^`#\n]*", "\n".join(page.read_text() for page in PAGES))
GPT2 = {"gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024)}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with what the documentation names: configurations of GPT-2, and a study."""
    for name, (layers, heads, hidden) in GPT2.items():
        config = Architecture().configure(Shape(layers=layers, heads=heads, hidden=hidden), 0)
        for folder in (tmp_path / name, tmp_path / "models" / name):
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(config))
    for name in ("my-study.yaml", "config/gpt2.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((CHECKOUT / "config/gpt2.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *words: str) -> str:
    main(["plan", *words])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_commands(home, capsys, command):
    printed = run(capsys, *shlex.split(command)[2:])
    sizes = re.findall(r"\d+MB?\b", command)
    assert re.findall(r"^(\w+): \{shape", printed, re.MULTILINE) == sizes
    assert printed.count("    methods: fit, paper, nested, lossless, aligned\n") == len(sizes)
    assert "220M: {shape: {layers: 18, heads: 14, hidden: 896, ffn: 3584}}" in printed


def test_all_of_it_is_documented():
    assert len(COMMANDS) >= 4 and {"--chain", "--study"} <= set(" ".join(COMMANDS).split())


@pytest.mark.parametrize(
    "words",
    [
        ["220M", "--chain", "gpt2", "gpt2-medium"],
        ["--chain", "gpt2", "gpt2-medium", "--", "220M"],
        ["--chain", "gpt2", "gpt2-medium", "220M", "--align", "32"],
        ["--chain", "gpt2", "gpt2-medium", "--precision", "float32", "220M"],
    ],
)
def test_a_size_may_stand_anywhere(home, capsys, words):
    assert run(capsys, *words).startswith("220M: {shape: {layers: 18, ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["gpt2", "gpt2-medium"],
            "no size is given, such as 220M or 440MB; after a folder of that name, write -- 220M",
        ),
        (["gpt2", "gpt2-large", "220M"], "gpt2-large/config.json: cannot be read"),
        (["gpt2", "gpt2-medium", "220X"], "params: '220X': input should be a valid integer"),
        (["gpt2", "gpt2-medium", "0"], "params: '0': input should be greater than 0"),
        (["gpt2", "gpt2-medium", "2B"], "2B: 2,000,000,000 parameters lie outside the chain (gpt2 124,439,808, "),
        (["gpt2", "gpt2-medium", "220M", "--align", "48"], "align: 48: give a multiple of 32"),
        (["gpt2", "gpt2-medium", "220M", "--align", "wide"], "align: 'wide': input should be a valid integer"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(home, capsys, words, line):
    with pytest.raises(SystemExit) as refusal:
        run(capsys, "--chain", *words)
    assert str(refusal.value).startswith(f"colpipe plan: error: {line}") and "\n" not in str(refusal.value)


def test_a_folder_that_is_called_like_a_size_is_a_folder(home, capsys):
    (home / "gpt2-medium").rename(home / "355M")
    assert "between gpt2 (12L/12H/768) and 355M" in run(capsys, "--chain", "gpt2", "355M", "220M")


def test_it_says_what_cannot_be_quantised(home, capsys):
    words = ["--chain", "gpt2", "gpt2-medium", "220M"]
    assert "quantisable" not in run(capsys, *words)
    narrow = Architecture().configure(Shape(layers=3, heads=5, hidden=80), 0)
    (home / "gpt2/config.json").write_text(json.dumps(narrow))
    (home / "gpt2-medium/config.json").write_text(json.dumps({**narrow, "n_layer": 9}))
    printed = run(capsys, *words[:-1], "4.5M")
    assert printed.endswith("\n    not quantisable (Q8_0, Q4_0): hidden 80, not in multiples of 32\n")
