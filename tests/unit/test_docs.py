"""What the documentation names is there, and what it says to type works."""

import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml

import colpipe
from colpipe.__main__ import COMMANDS
from colpipe.tools.show import draw
from tests.conftest import CHECKOUT, make_gpt2, make_tokenizer

PAGES = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")]
PAGES += sorted((CHECKOUT / "docs").glob("*.md"))
ROOTS = (
    "colpipe/",
    "config/",
    "docs/",
    "envs/",
    "tests/",
    "workflow/",
    "Snakefile",
    "Makefile",
    "pyproject.toml",
    "CHANGELOG.md",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_files_and_links_exist(page):
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    gone = [link for link in links if link and not (page.parent / link).exists()]
    paths = [path for path in re.findall(r"`([\w./*-]+)`", text) if path.startswith(ROOTS)]
    gone += [path for path in paths if not (list(CHECKOUT.glob(path)) if "*" in path else (CHECKOUT / path).exists())]
    modules = re.findall(r"python -m ((?:colpipe|tests)[\w.]*)", text)
    gone += [name for name in modules if not (CHECKOUT / name.replace(".", "/")).with_suffix(".py").exists()]
    assert not gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_rules_targets_and_make_targets_exist(page):
    text = page.read_text()
    workflow = "".join(path.read_text() for path in [CHECKOUT / "Snakefile", *CHECKOUT.glob("workflow/rules/*.smk")])
    exhibits = re.findall(r"^(\w+):$", (CHECKOUT / "colpipe/config/paper.yaml").read_text(), re.MULTILINE)
    rules = {*re.findall(r"^rule (\w+):", workflow, re.MULTILINE), *exhibits}
    named = re.findall(r"rule `(\w+)`", text) + re.findall(r"^ +snakemake ([a-z]\w*) ", text, re.MULTILINE)
    named += re.findall(r"`snakemake ([a-z]\w*)", text)
    assert not [name for name in named if name not in rules]
    making = re.findall(r"^([a-z]\w*):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert not [name for name in re.findall(r"`make (\w+)`", text) if name not in making]


def test_the_three_lines_of_the_readme(inputs, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    fit, linit = ("\n".join(filter(None, block.splitlines())) for block in blocks)
    assert len(fit.splitlines()) == 3 and '"90M"' in fit and '"220M"' in linit
    (tmp_path / "models").mkdir()
    (tmp_path / "models/smollm2-135m").symlink_to(inputs / "llama")
    (tmp_path / "notes.txt").write_text("the old stone school by the river " * 50)
    for name, shape in (("gpt2", (3, 2, 16)), ("gpt2-medium", (5, 4, 32))):
        make_gpt2(tmp_path / name, *shape, seed=1, vocabulary=300)
        make_tokenizer(["the old city"], 300).save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    made: dict = {}
    exec(fit.replace('"90M"', '"30k"'), made)
    exec(linit.replace('"220M"', '"40k"'), made)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert abs(AutoModelForCausalLM.from_pretrained("smollm2-90m").num_parameters() / 30_000 - 1) < 0.01
    assert AutoTokenizer.from_pretrained("smollm2-90m")("the river")["input_ids"]
    assert abs(made["model"].num_parameters() / 40_000 - 1) < 0.01


def test_commands_of_colpipe_exist():
    named = {
        word
        for page in PAGES
        for word in re.findall(r"(?:^ +|`|pip install .*&& )colpipe ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert {"init", "run", "show", "export"} <= named and named <= {*COMMANDS, "push"}


def test_completion_in_bash(tmp_path):
    """The line of the manual, in a shell where `snakemake` lists what this checkout has."""
    (tmp_path / "snakemake").write_text(f'#!/bin/sh\ncd {CHECKOUT} && exec {sys.executable} -m snakemake "$@"\n')
    (tmp_path / "snakemake").chmod(0o755)
    text = (CHECKOUT / "docs/usage.md").read_text()
    line = re.search(r"^ +(complete .* snakemake)$", text, re.MULTILINE)[1]
    script = f"PATH={tmp_path}:$PATH\n{line}\nwords=$(complete -p snakemake)\nwords=${{words#*-W \\'}}\n"
    script += 'compgen -W "${words%\\\' *}" -- "$0"\n'
    for typed, expected in (
        ("publ", "published"),
        ("re", "recovered report"),
    ):
        found = subprocess.run(["bash", "-c", script, typed], capture_output=True, text=True, check=True)
        assert " ".join(found.stdout.split()) == expected, found


def test_one_version():
    """It stands in colpipe/__init__.py; the citation and the newest section of the changelog have the same."""
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    released = re.search(r"^## (\d+\.\d+\.\d+)", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert citation["version"] == released == colpipe.__version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_lines_are_not_longer_than_a_screen(page):
    """Prose only: a row of a table and code stay in one line."""
    text = page.read_text().partition("## Every key")[0]  # what follows is made from the code
    text = re.sub(r"^(```[\s\S]*?^```|    .*|\|.*)$", "", text, flags=re.MULTILINE)
    assert not [line for line in text.splitlines() if len(line) > 120]


def test_the_readmes_first_result_is_that_of_the_demos_summary():
    summary = pd.read_csv(CHECKOUT / "docs/demo/summary.csv")
    table = re.search(r"^\| model \|.*?\n\n", (CHECKOUT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].rstrip().splitlines()[2:]]
    names = {"SmolLM2-135M-Instruct": "smollm2-135m"}
    assert [row[0] for row in rows] == [
        "SmolLM2-135M-Instruct",
        "large",
        *["110M"] * 2,
        *["100M"] * 2,
        *["90M"] * 2,
        "chance",
    ]
    for name, size, made, loss, piqa, words, kept in rows[:-1]:
        own = summary[summary.desnet == names.get(name, name)]
        if name.endswith("M"):
            own = own[own.tokens == (10_000 if "recovery" in made else 0)]
        value = own.set_index(["task", "metric"]).value
        [params] = set(own.params)
        assert (size, loss) == (f"{params / 1e6:.1f}M", f"{value['wikipedia', 'loss']:.3f}")
        assert piqa == f"{value['piqa', 'likelihood_normalised']:.1f}"
        assert words == f"{value['last-words', 'last_word']:.1f}"
        [all_tasks] = own[(own.task == "all tasks") & (own.metric == "kept")].itertuples()
        half = (all_tasks.high - all_tasks.low) / 2
        assert kept == f"{all_tasks.value:.0f}" + (f" ± {half:.0f}" if half else "")


def test_the_readmes_figure_is_drawn_from_the_demos_summary(tmp_path):
    draw(CHECKOUT / "docs/demo", tmp_path / "family")
    for variant in ("light", "dark"):
        name = f"family-{variant}.svg"
        assert (tmp_path / name).read_bytes() == (CHECKOUT / "docs/demo" / name).read_bytes()
