"""What stages make of models that others published: refused in one line, or trained and saved whole."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from colpipe.config.parts import Architecture, Runtime, Shape
from colpipe.errors import ColpipeError
from colpipe.hf import models
from colpipe.jobs.artifacts import MANIFEST, write_json
from colpipe.jobs.job import Job, JobSpec
from tests.conftest import make_model, make_tokenizer, write_tokens

ARCHITECTURE = {"family": "llama", "vocabulary": 300, "positions": 256, "tied": False}
SHAPE = {"layers": 2, "heads": 2, "hidden": 16, "ffn": 32}
TRAINING = {"steps": 1, "batch_size": 2, "max_length": 64}


def run(stage: str, output: Path, settings: dict, **parents: Path) -> Path:
    """One stage in this process; parents as `data.stories` are given as `data__stories`."""
    module = import_module(f"colpipe.stages.{stage}")
    kind = getattr(module, "Settings", None) or getattr(module, "Recover", None)
    named = {name.replace("__", "."): folder for name, folder in parents.items()}
    work = output.with_name(output.name + ".work")
    spec = JobSpec(
        stage,
        output,
        work,
        kind.model_validate(settings),
        Runtime(device="cpu"),
        named,
        0,
        None,
        None,
        module.__name__,
    )
    with Job(spec) as job:
        module.main(job)
    return output


@pytest.fixture
def model(tmp_path) -> Path:
    """A Llama whose generation settings are those of a published chat model."""
    make_model(tmp_path / "model", Architecture(**ARCHITECTURE), Shape(**SHAPE), seed=0)
    tokenizer = make_tokenizer(["the old stone school by the river"], 300)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "model")
    settings = {"eos_token_id": [0, 7], "temperature": 0.9, "top_p": 0.6}
    (tmp_path / "model/generation_config.json").write_text(json.dumps(settings))
    return tmp_path / "model"


@pytest.fixture
def rows(tmp_path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        row = {"kind": "q", "instruction": "a", "input": "", "output": "b"}
        lines = [json.dumps({**row, "id": str(number)}) for number in range(4)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def corpus(tmp_path) -> Path:
    folder, counts = tmp_path / "corpus", {}
    folder.mkdir()
    for split in ("train", "validation", "test"):
        write_tokens(folder, split, np.arange(256, dtype=np.uint16))
        counts[split] = {"tokens": 256, "bytes": 1024}
    write_json(folder / MANIFEST, {"counts": counts, "files": {}})
    return folder


def test_a_chat_model_is_fine_tuned_and_saved_with_its_ends_and_template(model, rows, tmp_path):
    training = {**TRAINING, "instructions": "x", "max_length": 250}
    out = run("sft", tmp_path / "out", {"training": training, "prompts": "paper"}, model=model, instructions=rows)
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id == [0, 7]
    assert AutoTokenizer.from_pretrained(out).chat_template


def test_a_distilled_student_ends_where_its_teacher_ends(model, corpus, tmp_path):
    out = run("distill", tmp_path / "out", distillation(), teacher=model, tokenizer=model, data__c=corpus)
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id == [0, 7]


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
@pytest.mark.parametrize("stage", ["distill", "seqkd", "teacher_signal", "bridge_answers"])
def test_what_is_only_read_is_loaded_in_the_precision_of_the_study(
    model, corpus, rows, tmp_path, monkeypatch, stage, precision, dtype
):
    # First imported below, they would keep what stands in for the function there.
    for module in ("stages.distill", "stages.teacher_signal", "stages.bridge_answers", "training.rollout_trainer"):
        import_module(f"colpipe.{module}")
    loaded, load = [], models.load_model

    def noted(folder, *rest):
        loaded.append(load(folder, *rest))
        return loaded[-1]

    monkeypatch.setattr(models, "load_model", noted)
    signal = {"architecture": ARCHITECTURE, "top_k": 4, "max_length": 32, "precision": precision}
    answers = {"instructions": "x", "prompts": 2, "max_new_tokens": 2, "precision": precision}
    settings, taught = distillation(), {"teacher": model, "tokenizer": model}
    settings["training"]["precision"] = precision
    calls = {
        "distill": ("distill", settings, {**taught, "data__c": corpus}),
        "seqkd": (
            "distill",
            {**settings, "training": {**settings["training"], **SEQKD}},
            {**taught, "data__rows": rows},
        ),
        "teacher_signal": ("teacher_signal", signal, {"teacher": model, "data__c": corpus}),
        "bridge_answers": (
            "bridge_answers",
            {"answers": answers, "prompts": "paper"},
            {"model": model, "instructions": rows},
        ),
    }
    name, given, parents = calls[stage]
    out = run(name, tmp_path / "out", given, **parents)
    assert [each.dtype for each in loaded] == [dtype] and not any(p.requires_grad for p in loaded[0].parameters())
    if name == "distill":
        assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.float32


def test_an_order_is_measured_in_the_precision_of_the_study_and_exact_in_both(model, corpus, tmp_path):
    made = {}
    for precision in ("float32", "bfloat16"):
        measuring = {"corpus": "c", "tokens": 256, "max_length": 32, "precision": precision}
        settings = {"select": "rotate", "measuring": measuring}
        out = run("order", tmp_path / precision, settings, model=model, corpus=corpus)
        made[precision] = AutoModelForCausalLM.from_pretrained(out)
        manifest = json.loads((out / MANIFEST).read_text())
        assert manifest["loss_before"] == pytest.approx(manifest["loss_after"], abs=1e-3)
    one, other = (each.state_dict() for each in made.values())
    assert any(not torch.equal(one[name], other[name]) for name in one)


SEQKD = {"objective": "seqkd", "data": ["rows"], "max_length": 250, "rollout": {"max_new_tokens": 2}}


def distillation(**architecture) -> dict:
    training = {**TRAINING, "objective": "reverse_kl", "data": ["c"], "warmup": 0}
    return {"architecture": {**ARCHITECTURE, **architecture}, "shape": {**SHAPE, "layers": 1}, "training": training}


@pytest.mark.parametrize(("scale", "told"), [(40.0, True), (0.0, False)])  # sure of what is wrong; sure of nothing
def test_the_log_says_that_a_model_is_worse_than_a_uniform_guess(model, corpus, tmp_path, capfd, scale, told):
    weights = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        weights.lm_head.weight *= scale
    weights.save_pretrained(model)
    run("evaluate", tmp_path / "out", {"tasks": {}}, model=model, corpus__c=corpus)
    log = capfd.readouterr().err
    assert ("c: worse than guessing: a uniform guess has 5.70 (ln 300)" in log) == told
    assert "broken" not in log  # whether the model is random and has learnt nothing yet, the report knows


LINE = (
    r"^architecture\.vocabulary: 258 rows of the embedding are less than the tokenizer's \d+ entries \(.*model\); ids"
)


def test_every_stage_refuses_a_vocabulary_below_the_tokenizer_in_the_same_line(model, corpus, tmp_path):
    settings = distillation(vocabulary=258)
    parts = {key: settings[key] for key in ("architecture", "shape")}
    pretraining = {**TRAINING, "corpus": "c"}
    calls = {
        "distill": (settings, {"teacher": model, "tokenizer": model, "data__c": corpus}),
        "pretrain": ({**parts, "training": pretraining}, {"tokenizer": model, "corpus": corpus}),
        "assemble": ({**parts, "kind": "subset"}, {"source": model, "tokenizer": model}),
        "teacher_signal": (
            {"architecture": parts["architecture"], "top_k": 4, "max_length": 32},
            {"teacher": model, "data__c": corpus},
        ),
    }
    for stage, (given, parents) in calls.items():
        with pytest.raises(ColpipeError, match=LINE):
            run(stage, tmp_path / stage, given, **parents)


def test_a_model_that_nothing_is_to_be_trained_on_stays_as_it_is(model, tmp_path):
    out = run("sft", tmp_path / "out", {"prompts": "paper"}, model=model)
    one, other = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (model, out))
    assert all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()
    assert AutoTokenizer.from_pretrained(out).chat_template
    with pytest.raises(ColpipeError, match="settings: training needs --instructions"):
        run("sft", tmp_path / "no", {"prompts": "paper", "training": {**TRAINING, "instructions": "x"}}, model=model)


def test_a_model_with_fewer_rows_than_its_tokenizer_is_not_fine_tuned(model, rows, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<{number}>" for number in range(60)])
    tokenizer.save_pretrained(model)
    training = {**TRAINING, "instructions": "x"}
    with pytest.raises(
        ColpipeError, match=r"model: 300 rows of the embedding are less than the tokenizer's 3\d+ entries"
    ):
        run("sft", tmp_path / "out", {"training": training, "prompts": "paper"}, model=model, instructions=rows)


@pytest.mark.parametrize("other", ["teacher", "student"])
def test_a_teacher_or_student_of_another_tokenizer_is_refused(model, corpus, tmp_path, other):
    stranger = Path(shutil.copytree(model, tmp_path / "stranger"))
    make_tokenizer(["great music built in a small city"], 300).save_pretrained(stranger)
    parents = {"teacher": model, "tokenizer": model, other: stranger}
    advice = "its ancestor needs a bridge" if other == "teacher" else "a member starts from a model of the chain's"
    with pytest.raises(ColpipeError, match=f"stranger and .*model have different tokenizers: id 257 is .*; {advice}"):
        run("distill", tmp_path / "out", distillation(), data__c=corpus, **parents)


def test_an_ancestor_with_fewer_layers_than_the_member_is_refused_in_one_line(model, corpus, tmp_path):
    settings = {**distillation(), "shape": {**SHAPE, "layers": 3}}
    with pytest.raises(ColpipeError, match="model: layer is 2, the target's 3 is more than that"):
        run("distill", tmp_path / "out", settings, teacher=model, tokenizer=model, data__c=corpus)


def test_a_student_of_another_shape_than_the_study_says_is_refused(model, corpus, tmp_path):
    parents = {"teacher": model, "student": model, "tokenizer": model}
    with pytest.raises(ColpipeError, match="model: layer is 2, the study's shape says 1"):
        run("distill", tmp_path / "out", distillation(), data__c=corpus, **parents)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            float("nan"),
            r"model: its model\.norm\.weight has 16 of 16 values that are not finite: such a model can be neither",
        ),
        (1e6, r"model: its loss on stories is [\d,.]+ nats per token \(up to [\d,.]+\), and the perplexity overflows"),
    ],
)
def test_a_model_that_gives_no_number_is_not_scored(model, corpus, tmp_path, value, message):
    broken = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        broken.model.norm.weight.fill_(value)
    broken.save_pretrained(model)
    with pytest.raises(ColpipeError, match=message):
        run("evaluate", tmp_path / "out", {}, model=model, corpus__stories=corpus)
    assert not (tmp_path / "out/scores.json").exists()
