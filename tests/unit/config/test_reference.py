import json
import re

import pytest
import yaml

from colpipe.config.loading import load_study
from colpipe.config.reference import reference_text, schema_text
from colpipe.config.study import Study
from tests.conftest import CHECKOUT


def test_the_schema_is_in_step_with_the_study():
    """If this fails: python -m colpipe.config.reference schema > workflow/schemas/study.schema.json"""
    assert (CHECKOUT / "workflow/schemas/study.schema.json").read_text() == schema_text()


def test_the_reference_in_the_config_manual_is_in_step():
    """If this fails: `python -m colpipe.config.reference reference` prints what belongs under «Every key»."""
    manual = (CHECKOUT / "config/README.md").read_text()
    assert reference_text() in manual


def test_nothing_in_the_reference_is_shown_as_code_because_it_is_indented():
    assert not [line for line in reference_text().splitlines() if line.startswith(" ")]


def test_every_key_is_explained():
    for table in reference_text().split("### ")[1:]:
        for row in re.findall(r"^\| `.*$", table, re.MULTILINE):
            assert len(row.split("|")[4].strip()) > 10, row


def test_snakemake_validates_with_it(monkeypatch):
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import validate

    monkeypatch.chdir(CHECKOUT)
    demo = yaml.safe_load((CHECKOUT / "config/config.yaml").read_text())
    schema = str(CHECKOUT / "workflow/schemas/study.schema.json")
    resolved = load_study(demo).model_dump(mode="json")
    validate(resolved, schema, set_default=False)
    assert Study.model_validate(resolved).model_dump(mode="json") == resolved
    resolved["colour"] = "red"
    with pytest.raises(WorkflowError, match="colour"):
        validate(resolved, schema, set_default=False)


def test_the_schema_is_json():
    assert json.loads(schema_text())["title"] == "Study"


@pytest.mark.parametrize("name", ["cpu", "gpu", "npu"])
def test_conda_environments_hold_the_versions_of_the_constraints(name):
    constraints = re.findall(r"^[a-z].*==.*$", (CHECKOUT / f"envs/{name}.txt").read_text(), re.MULTILINE)
    conda = yaml.safe_load((CHECKOUT / f"envs/{name}.yaml").read_text())["dependencies"][-1]["pip"]
    elsewhere = (
        "pytest",
        "ruff",
        "snakefmt",
        "codespell",
        "mypy",
        "types-",
        "tensorboard",
        "snakemake-executor",
        "snakemake-logger",
        "xllamacpp",
    )  # for tests, and where jobs start from
    assert conda == [pin for pin in constraints if not pin.startswith(elsewhere)]


def test_torch_npu_is_the_release_of_the_pinned_torch():
    pins = dict(line.split("==") for line in (CHECKOUT / "envs/npu.txt").read_text().split() if "==" in line)
    assert pins["torch"] == pins["torch-npu"]
