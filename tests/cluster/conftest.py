"""A study of ten jobs on the chain's own family, and one finished run of it on this machine to compare with."""

import copy
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from colpipe.hashing import sha256
from tests import forked
from tests.conftest import STUDY, checkout, pack_wheel, snakemake

JOBS = 9  # that a scheduler gets: all but the fetching


@pytest.fixture(scope="session")
def articles(tmp_path_factory, inputs) -> SimpleNamespace:
    """The articles as a published wheel: `index`, the folder that it lies in, and `source`, the study's word for it."""
    home = tmp_path_factory.mktemp("articles")
    (home / "content").mkdir()
    shutil.copy(inputs / "articles.json", home / "content")
    _, path = pack_wheel(home / "index", home / "content")
    source = {"pypi": "sample-data==1.0", "sha256": sha256(path), "files": ["sample_data/articles.json"]}
    return SimpleNamespace(index=path.parent, source=source)


def index_at(place: str) -> dict[str, str]:
    """Variables that have pip look for wheels at a path or address, and nowhere else."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": place, "PIP_CONFIG_FILE": os.devnull}


def small_study(articles: SimpleNamespace) -> dict:
    study = copy.deepcopy(STUDY)
    study.update(
        study="small",
        models={"own": {"shape": {"layers": 4, "heads": 4, "hidden": 32}}},
        ancestors={"own": {"model": "own", "select": "even"}},
        tasks={},
        budgets=[512],
        runtime={"device": "cpu"},
    )
    study["chain"] = {"large": study["chain"]["large"], "small": study["chain"]["small"]}
    study["desnets"] = {"upper": {"shape": {"layers": 3, "heads": 2, "hidden": 16}}}
    study["initialisers"] = {"nested": study["initialisers"]["nested"]}
    study["datasets"].pop("questions")
    study["datasets"]["articles"]["source"] = articles.source
    study["instructions"].pop("boolq")
    return study


def contents(results: Path) -> dict[str, bytes]:
    """Manifests and weights of a study."""
    paths = [*results.glob("**/manifest.json"), *results.glob("**/*.safetensors")]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths if "work" not in path.parts}


@pytest.fixture(scope="session")
def local(tmp_path_factory, inputs, articles) -> SimpleNamespace:
    """`contents` of the study as this machine made it."""
    home = checkout(tmp_path_factory.mktemp("local"), inputs, small_study(articles))
    command = ["recovered", "--configfile", "my-study.yaml", "--max-threads", "1"]
    snakemake(home, *command, checkout=home, env=forked.environment() | index_at(str(articles.index)))
    return SimpleNamespace(home=home, contents=contents(home / "results" / "small"))
