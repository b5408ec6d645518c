"""A study of ten jobs on the chain's own family, and one finished run of it on this machine to compare with."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import STUDY, checkout, snakemake

JOBS = 9  # that a scheduler gets: all but the fetching


def small_study() -> dict:
    study = copy.deepcopy(STUDY)
    study.update(
        study="small",
        models={"own": {"shape": {"layers": 4, "heads": 4, "hidden": 32}}},
        ancestors={"own": {"model": "own"}},
        tasks={},
        budgets=[512],
        runtime={"device": "cpu"},
    )
    study["chain"] = {"large": study["chain"]["large"], "small": study["chain"]["small"]}
    study["desnets"] = {"upper": {"shape": {"layers": 3, "heads": 2, "hidden": 16}}}
    study["initialisers"] = {"nested": study["initialisers"]["nested"]}
    study["datasets"].pop("questions")
    study["instructions"].pop("boolq")
    return study


def contents(results: Path) -> dict[str, bytes]:
    """Manifests and weights of a study."""
    paths = [*results.glob("**/manifest.json"), *results.glob("**/*.safetensors")]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths if "work" not in path.parts}


@pytest.fixture(scope="session")
def local(tmp_path_factory, inputs) -> SimpleNamespace:
    """`contents` of the study as this machine made it."""
    home = checkout(tmp_path_factory.mktemp("local"), inputs, small_study())
    snakemake(home, "recovered", "--configfile", "my-study.yaml", checkout=home)
    return SimpleNamespace(home=home, contents=contents(home / "results" / "small"))
