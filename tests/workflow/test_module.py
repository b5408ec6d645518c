"""The workflow in other hands: as a module of another workflow, and called from another folder."""

import json

import pytest
import yaml

from tests import conftest
from tests.conftest import CHECKOUT, STUDY, checkout

TARGET = "results/tiny/sft/llama/manifest.json"

pytestmark = pytest.mark.slow


@pytest.fixture
def other(tmp_path, inputs):
    """A folder with a workflow of somebody else, who has a package `colpipe` of his own lying about."""
    (tmp_path / "inputs").symlink_to(inputs)
    (tmp_path / "colpipe").mkdir()
    (tmp_path / "colpipe" / "__init__.py").write_text("raise SystemExit('the wrong colpipe')")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"tiny": STUDY, "mine": 1}, sort_keys=False))
    (tmp_path / "workflow").mkdir()
    return tmp_path


def snakemake(folder, *arguments: str, **more) -> str:
    """What Snakemake says."""
    result = conftest.snakemake(folder, *arguments, **more)
    return result.stdout + result.stderr


def write(other, lines: str, use: str = "use rule * from colpipe as cp_*", target: str = TARGET) -> None:
    (other / "workflow" / "Snakefile").write_text(
        f"""configfile: "config.yaml"

module colpipe:
    snakefile: "{CHECKOUT}/Snakefile"
    config: config["tiny"]
    {lines}

{use}

rule mine:
    default_target: True
    input: "{target}"
    output: "mine.txt"
    shell: "cp {{input}} {{output}}; echo {{config[mine]}}"
"""
    )


@pytest.mark.parametrize(("lines", "home"), [("", ""), ('prefix: "sub"', "sub/")])
def test_as_a_module(other, lines, home):
    write(other, lines, target=home + TARGET)
    first = snakemake(other, checkout=other / "workflow")
    assert "rule cp_sft:" in first and "rule mine:" in first
    assert json.loads((other / "mine.txt").read_text())["stage"] == "sft"
    assert (other / f"{home}results/tiny/work/sft/llama/log.txt").exists()
    assert bool(home) == (not (other / "results").exists())
    again = snakemake(other, "-n", checkout=other / "workflow")
    assert "Nothing to be done" in again
    (other / f"{home}results/tiny/data/describe/train.jsonl").write_text("")
    changed = snakemake(other, "-n", checkout=other / "workflow")
    assert f"{home}results/tiny/sft/llama is made again: instructions" in changed
    everything = snakemake(other, "-n", "cp_all", "cp_published", checkout=other / "workflow")
    assert "rule cp_publish:" in everything and "rule cp_report:" in everything


def test_as_a_module_with_its_own_names(other):
    write(other, "", "use rule * from colpipe")
    dry = snakemake(other, "-n", "mine", "scores", checkout=other / "workflow")
    assert "rule evaluate:" in dry and "rule mine:" in dry


def test_a_second_checkout_in_one_workflow_is_refused(other, tmp_path):
    """Both would need the package by one name."""
    (tmp_path / "second").mkdir()
    checkout(tmp_path / "second", tmp_path / "inputs", STUDY)
    write(other, "")
    with open(other / "workflow" / "Snakefile", "a") as file:
        second = f'module again:\n    snakefile: "{tmp_path}/second/Snakefile"\n    config: config["tiny"]\n'
        file.write(f"\n{second}    prefix: 'again'\n\nuse rule * from again as again_*\n")
    refused = snakemake(other, "-n", checkout=other / "workflow", check=False)
    assert f"colpipe was imported from {CHECKOUT}, and this Snakefile is that of {tmp_path}/second" in refused


def test_two_studies_in_one_workflow(other):
    write(other, "")
    with open(other / "workflow" / "Snakefile", "a") as file:
        again = f'module again:\n    snakefile: "{CHECKOUT}/Snakefile"\n    config: config["tiny"] | {{"seed": 3}}\n'
        file.write(f"\n{again}    prefix: 'again'\n\nuse rule * from again as again_*\n")
    said = snakemake(other, "-n", "mine", "again_scores", checkout=other / "workflow")
    assert "rule again_distill:" in said and "rule cp_sft:" in said and "again/results/tiny/chain/llama/small" in said


def test_included(other):
    text = f'configfile: "study.yaml"\ninclude: "{CHECKOUT}/Snakefile"\n'
    (other / "workflow" / "Snakefile").write_text(text)
    (other / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    assert "rule distill:" in snakemake(other, "-n", "scores", checkout=other / "workflow")


def test_the_demo_from_another_folder_with_keys_of_its_own(tmp_path):
    dry = snakemake(tmp_path, "-n", "--config", "study=foo", "seed=3")
    assert "results/foo/report.html" in dry and "results/demo" not in dry


def test_a_study_is_not_filled_up_with_the_demos_keys(tmp_path):
    study = {key: value for key, value in STUDY.items() if key != "chain"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    refused = snakemake(tmp_path, "-n", "--configfile", "study.yaml", check=False)
    assert "study.yaml: chain: missing" in refused


def test_the_example(tmp_path):
    """examples/module: a published model of a study, and what a rule of the other workflow makes of it."""
    example = CHECKOUT / "examples" / "module"
    (tmp_path / "config.yaml").write_text((example / "config.yaml").read_text())
    dry = snakemake(tmp_path, "-n", checkout=example)
    assert all(f"rule {name}:" in dry for name in ("colpipe_distill", "colpipe_publish", "write"))
    assert "output: sentence.txt" in dry and "results/module/published/desnets/smollm2/99M/fit/0/README.md" in dry
    assert set(yaml.safe_load((example / "config.yaml").read_text())) == {"begins", "colpipe"}


def test_where_the_workflow_catalogue_looks(tmp_path):
    """It wants workflow/Snakefile, config/README.md and its own file beside them."""
    dry = snakemake(tmp_path, "-n", "chain", checkout=CHECKOUT / "workflow")
    assert "rule distill:" in dry and "results/demo/chain/smollm2/small" in dry
    usage = yaml.safe_load((CHECKOUT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"] == {
        "conda": True,
        "apptainer": False,
        "apptainer+conda": False,
        "report": True,
    }
    assert usage["mandatory-flags"]["flags"] == [] and (CHECKOUT / "config" / "README.md").is_file()
