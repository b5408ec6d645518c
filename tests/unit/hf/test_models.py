"""What is loaded is data: no code that comes with a model runs."""

import json

import pytest
import torch

from colpipe.errors import ColpipeError
from colpipe.hf.models import load_model
from tests.conftest import make_gpt2, stage


@pytest.fixture
def pickled(tmp_path):
    """A model whose weights are pickled, as they were before safetensors."""
    model = make_gpt2(tmp_path / "model", 1, 1, 8, seed=0)
    (tmp_path / "model/model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "model/pytorch_model.bin")
    return tmp_path / "model"


def test_pickled_weights_are_not_read(pickled):
    with pytest.raises(ColpipeError, match=r"cannot be loaded as a causal language model: .*safetensors"):
        load_model(pickled)


def test_they_are_refused_when_they_are_fetched(pickled):
    words = ["--output", pickled.with_name("out"), "--settings", json.dumps({"path": str(pickled)})]
    result = stage("fetch_model", *words, check=False)
    assert (
        result.returncode == 1
        and "the source has no .safetensors file; weights in other formats may hold" in result.stderr
    )


def test_code_beside_a_model_is_not_run(tmp_path):
    make_gpt2(tmp_path, 1, 1, 8, seed=0)
    config = json.loads((tmp_path / "config.json").read_text())
    named = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": named}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    with pytest.raises(ColpipeError, match="cannot be loaded as a causal language model"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()
