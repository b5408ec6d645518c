"""A stage imports what it runs: starting one costs more than many of them do."""

import itertools
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
# Which of these stages may import. One Python imports all of a list, each of which may import more than those before it.
ALLOWED = [
    [
        (("fetch_dataset", "train_tokenizer"), set()),
        (("fetch_model", "assemble", "prepare_corpus", "prepare_instructions", "mix_corpus"), {"torch"}),
        (("order", "teacher_signal", "bridge_answers", "write_corpus", "export"), {*MODELS, "scipy"}),
        (("pretrain", "recover", "distill"), {*TRAINS, "scipy"}),
        (("sft", "bridge"), {*TRAINS, "scipy", "trl"}),
        (("evaluate", "stack"), {*TRAINS, "scipy", "trl", "rouge_score"}),
    ],
    [
        (("leakage",), {"pandas"}),
        (("exhibit",), {"pandas", "matplotlib.pyplot"}),
        (("report",), {"pandas", "matplotlib.pyplot", "rouge_score", "scipy"}),
    ],
    [(("publish",), {"torch", "pandas", "rouge_score", "scipy"})],  # the tokenizer tells what it puts before a text
]


def test_every_stage_is_here():
    stages = sorted(path.stem for path in (CHECKOUT / "colpipe/stages").glob("[a-z]*.py"))
    assert sorted(stage for groups in ALLOWED for group, _ in groups for stage in group) == stages
    assert all(before <= after for groups in ALLOWED for (_, before), (_, after) in itertools.pairwise(groups))


@pytest.mark.parametrize("groups", ALLOWED, ids=lambda groups: groups[0][0][0])
def test_a_stage_imports_what_it_runs(groups):
    code = "import json, sys\n"
    for stages, _ in groups:
        code += "".join(f"import colpipe.stages.{stage}\n" for stage in stages)
        code += f"print(json.dumps([name for name in {sorted(HEAVY)} if name in sys.modules]))\n"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    for (stages, allowed), found in zip(groups, said.stdout.splitlines(), strict=True):
        assert set(json.loads(found)) <= allowed, stages
