"""colpipe installed as a package, in a folder that is no checkout: its command runs studies by its own Snakefile."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.conftest import CHECKOUT


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
def colpipe(package, inputs, study, tmp_path):
    """Call the command in a folder with inputs/ and my-study.yaml."""
    (tmp_path / "inputs").symlink_to(inputs)
    (tmp_path / "my-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))

    def call(*words: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(package)}
        command = [sys.executable, "-P", "-m", "colpipe", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)

    return call


def test_it_runs_by_its_own_rules(colpipe, package, tmp_path):
    found = colpipe("doctor")
    assert f"rules of {package}/colpipe/checkout" in found.stdout and not found.returncode, found.stderr
    found = colpipe("run", "my-study.yaml", "results/tiny/tokenizer/manifest.json", "--cores", "1")
    assert not found.returncode, found.stderr
    assert (tmp_path / "results/tiny/tokenizer/tokenizer.json").exists()
    log = (tmp_path / "results/tiny/logs/train_tokenizer.log").read_text()
    assert "Traceback" not in log
    again = colpipe("run", "my-study.yaml", "results/tiny/tokenizer/manifest.json", "--cores", "1")
    assert "Nothing to be done" in again.stderr
    assert "1 train_tokenizer" in colpipe("show", "results/tiny").stdout


def test_all_of_a_study_is_planned(colpipe):
    found = colpipe("run", "my-study.yaml", "-n", "--quiet", "rules")
    assert not found.returncode and "evaluate" in found.stdout, found.stderr


def test_its_profile_is_found(colpipe):
    """`show-failed-logs` of workflow/profiles/default, which a run says that it uses."""
    assert "workflow specific profile" in colpipe("run", "my-study.yaml", "-n").stderr
