"""Bad input gets one clear line and a non-zero exit, no traceback."""

import copy
import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.conftest import CHECKOUT, STUDY, make_tokenizer, make_wheel, snakemake, stage

pytestmark = pytest.mark.slow


def refused(result) -> str:
    """What a refused stage said: one line that starts with its name."""
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if "error: " in line]
    return line


@pytest.fixture
def index(tmp_path):
    """Environment with a local package index that holds one wheel, and the wheel's sha256."""
    return make_wheel(tmp_path / "index")


def fetch(tmp_path, env, **source):
    settings = json.dumps({"files": ["*"], **source})
    return stage("fetch_dataset", "--settings", settings, "--output", tmp_path / "out", env=env, check=False)


def test_a_wheel_that_does_not_exist(tmp_path, index):
    env, digest = index
    line = refused(fetch(tmp_path, env, pypi="no-such-data==1.0", sha256=digest))
    assert "source no-such-data==1.0: pip could not download the wheel" in line


def test_a_wheel_with_the_wrong_sha256(tmp_path, index):
    env, digest = index
    line = refused(fetch(tmp_path, env, pypi="sample-data==1.0", sha256="f" * 64))
    assert f"has sha256 {digest}, the study says {'f' * 64}" in line
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_truncated_safetensors_file(tmp_path, finished):
    model = tmp_path / "model"
    shutil.copytree(finished.results / "chain/llama/small", model)
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    line = refused(
        stage("evaluate", "--model", model, "--settings", "{}", "--output", tmp_path / "out",
              "--corpus", f"stories={finished.results / 'data/stories'}", check=False)
    )  # fmt: skip
    assert f"{model}: cannot be loaded" in line and "broken: model.safetensors" in line


def test_a_study_that_names_an_unknown_model(tmp_path, inputs):
    (tmp_path / "inputs").symlink_to(inputs)
    study = copy.deepcopy(STUDY)
    study["ancestors"]["llama"]["model"] = "lama-7b"
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    result = snakemake(tmp_path, "--configfile", "bad.yaml", check=False)
    assert result.returncode == 1
    text = result.stdout + result.stderr
    assert "bad.yaml: ancestors.llama.model: 'lama-7b' is not in models (llama, bridge)" in text
    assert "Traceback" not in text
    assert not (tmp_path / "results").exists() and not (tmp_path / "resources").exists()


def test_an_empty_data_set(tmp_path, finished):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "rows.jsonl").write_text("\n")
    settings = {
        "dataset": {"source": {"path": str(empty)}, "reader": "alpaca"},
        "instructions": {"dataset": "x"},
    }
    line = refused(
        stage("prepare_instructions", "--dataset", empty, "--tokenizer", finished.results / "tokenizer",
              "--settings", json.dumps(settings), "--output", tmp_path / "out", check=False)
    )  # fmt: skip
    assert f"{empty}: the alpaca reader found no rows in ['rows.jsonl']" in line


def test_wrong_settings_by_hand(tmp_path, finished):
    line = refused(
        stage("recover", "--model", finished.results / "chain/llama/small", "--corpus", finished.results / "data/stories",
              "--settings", '{"corpus": "stories", "steps": "many"}', "--output", tmp_path / "out", check=False)
    )  # fmt: skip
    assert "--settings: steps: 'many': Input should be a valid integer" in line


def can_mount() -> bool:
    """Whether this user may mount a small file system in a name space of its own."""
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs a user name space to mount a full disk")
def test_no_disk_space_for_a_checkpoint(tmp_path):
    """A real file system of 64 MB that is nearly full: a model of 14 MB does not fit any more."""
    (tmp_path / "disk").mkdir()
    make_tokenizer(["words"], 300).save_pretrained(tmp_path / "tokenizer")
    settings = {
        "architecture": {"vocabulary": 300, "positions": 16},
        "shape": {"layers": 4, "heads": 4, "hidden": 256},
        "kind": "rand",
    }
    command = [sys.executable, "-m", "colpipe.stages.assemble", "--tokenizer", "tokenizer"]
    command += ["--settings", json.dumps(settings), "--output", "disk/out"]
    script = tmp_path / "run.sh"
    words = " ".join(f"'{word}'" for word in command)
    script.write_text(f"mount -t tmpfs -o size=64m none disk && head -c 58000000 /dev/zero > disk/full && {words}\n")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    result = subprocess.run(
        ["unshare", "-rm", "sh", "run.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    line = refused(result)
    assert "no space left for a model: it needs 13.0 MB" in line
