"""A stage imports what it runs: starting one costs more than many of them do."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT

# Libraries that take long to import, by the module that takes the time: transformers itself is quick.
MODELS = {"torch", "transformers.modeling_utils"}
TRAINS = {*MODELS, "transformers.trainer", "datasets", "pandas"}  # transformers' Trainer imports datasets, that pandas
HEAVY = {*TRAINS, "trl", "lm_eval", "matplotlib.pyplot", "rouge_score", "scipy"}
# Stages together, so that each library is imported a few times only, and which of these they may import.
ALLOWED = {
    ("fetch_dataset", "train_tokenizer"): set(),
    ("fetch_model", "assemble", "prepare_corpus", "prepare_instructions", "mix_corpus"): {"torch"},
    ("leakage",): {"pandas"},
    ("exhibit",): {"pandas", "matplotlib.pyplot"},
    ("report",): {"pandas", "matplotlib.pyplot", "rouge_score", "scipy"},
    ("publish",): {"torch", "pandas", "rouge_score", "scipy"},  # the tokenizer tells what it puts before a text
    ("order", "teacher_signal", "bridge_answers", "write_corpus"): {*MODELS, "scipy"},
    ("export",): {*MODELS, "scipy"},
    ("pretrain", "recover", "distill"): {*TRAINS, "scipy"},
    ("sft", "bridge"): {*TRAINS, "scipy", "trl"},
    ("evaluate", "stack"): {*TRAINS, "scipy", "trl", "rouge_score"},
}


def test_every_stage_is_here():
    stages = sorted(path.stem for path in (CHECKOUT / "colpipe/stages").glob("[a-z]*.py"))
    assert sorted(stage for group in ALLOWED for stage in group) == stages


@pytest.mark.parametrize("stages", ALLOWED, ids=", ".join)
def test_a_stage_imports_what_it_runs(stages):
    imports = "".join(f"import colpipe.stages.{stage}\n" for stage in stages)
    code = f"{imports}import json, sys\nprint(json.dumps([name for name in {sorted(HEAVY)} if name in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert set(json.loads(said.stdout)) <= ALLOWED[stages]
