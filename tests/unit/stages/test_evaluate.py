"""All scores of a model come of one load of it, and no task disturbs another, or the held-out loss."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from colpipe.config.parts import Architecture, Shape
from colpipe.errors import ColpipeError
from colpipe.evaluation.continuations import continuations
from colpipe.hf.models import load_model
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.artifacts import MANIFEST, write_json
from colpipe.stages import evaluate
from tests.conftest import WORDS, make_model, make_tokenizer, write_tokens
from tests.unit.stages.test_models import run

TUNED = {"steps": 3, "batch_size": 2, "max_length": 180, "learning_rate": 0.1}
TASKS = {
    "first": {"instructions": "first", "max_new_tokens": 3, "likelihood": True, "fine_tune": TUNED},
    "plain": {"instructions": "first", "max_new_tokens": 3, "likelihood": True, "fine_tune": None},
    "second": {"instructions": "second", "max_new_tokens": 3, "likelihood": True, "fine_tune": {**TUNED, "steps": 2}},
}


@pytest.fixture
def inputs(tmp_path):
    chain = Architecture(family="gpt2", vocabulary=300, positions=192)
    make_model(tmp_path / "model", chain, Shape(layers=2, heads=2, hidden=16), seed=0)
    make_tokenizer([" ".join(WORDS)], 300).save_pretrained(tmp_path / "model")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_tokens(corpus, "test", np.arange(256, dtype=np.uint16))
    write_json(corpus / MANIFEST, {"counts": {"test": {"tokens": 256, "bytes": 1024}}, "files": {}})
    for folder, start in (("first", 0), ("second", 3)):
        (tmp_path / folder).mkdir()
        for split in ("train", "test"):
            rows = []
            for n in range(6):
                own = [WORDS[(start + n + k) % len(WORDS)] for k in range(3)]
                choices = {"contexts": [f"{own[0]}:"] * 3, "continuations": [f" {word}" for word in own]}
                row = {"id": str(n), "kind": "q", "instruction": own[0], "input": "", "output": own[n % 3]}
                rows.append({**row, "choices": own, "likelihood": choices})
            (tmp_path / folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def scored(inputs, output: str, names: tuple[str, ...], **more) -> tuple[dict, dict]:
    """Scores, and answers by task."""
    tasks = {f"task__{name}": inputs / TASKS[name]["instructions"] for name in names}
    settings = {"tasks": {name: TASKS[name] for name in names}, **more}
    folder = run("evaluate", inputs / output, settings, model=inputs / "model", corpus__text=inputs / "corpus", **tasks)
    answers = {name: (folder / f"answers/{name}.jsonl").read_text() for name in names}
    return json.loads((folder / "scores.json").read_text()), answers


def test_one_load_gives_what_each_task_alone_gives(inputs, monkeypatch):
    loads: list = []
    for name in ("load_model", "load_frozen"):
        load = getattr(evaluate, name)
        monkeypatch.setattr(
            evaluate, name, lambda folder, *more, load=load: loads.append(folder) or load(folder, *more)
        )
    scores, answers = scored(inputs, "together", tuple(TASKS))
    assert loads == [inputs / "model"]
    for name in TASKS:
        own, texts = scored(inputs, f"alone-{name}", (name,))
        assert own == {"text": scores["text"], name: scores[name]} and texts == {name: answers[name]}
    assert answers["first"] != answers["plain"]  # it was fine-tuned
    for metric in ("likelihood", "likelihood_normalised"):
        assert scores["first"][metric] == scores["plain"][metric]


@pytest.mark.parametrize(("asked", "block"), [(None, 192), (64, 64), (192, 100)])
def test_held_out_text_is_cut_into_blocks_of_the_length_that_is_asked_for(inputs, asked, block, monkeypatch):
    """No longer than the text; left out, as long as the model reads."""
    if block == 100:
        write_json(inputs / "corpus" / MANIFEST, {"counts": {"test": {"tokens": 100, "bytes": 400}}, "files": {}})
    monkeypatch.setattr(evaluate, "interval", lambda losses: (losses.min(), losses.max()))
    monkeypatch.setattr(evaluate, "block_losses", lambda *given, length, tokens: np.full(3, float(length or 192)))
    folder = run(
        "evaluate", inputs / "out", {"max_length": asked}, model=inputs / "model", corpus__text=inputs / "corpus"
    )
    assert json.loads((folder / "scores.json").read_text())["text"]["loss"] == block


def test_blocks_that_a_model_cannot_read_are_refused(inputs):
    settings = {"max_length": 193}
    line = "stages.evaluate.max_length: a block of held-out text has 193 tokens, but the model has 192 positions; lower"
    with pytest.raises(ColpipeError, match=line):
        run("evaluate", inputs / "out", settings, model=inputs / "model", corpus__text=inputs / "corpus")


def test_of_held_out_text_as_many_tokens_as_are_asked_for_are_scored(inputs):
    settings = {"max_length": 32, "tokens": 64}
    folder = run("evaluate", inputs / "out", settings, model=inputs / "model", corpus__text=inputs / "corpus")
    ids = torch.arange(256).view(8, 32)[[0, 4]]  # two blocks, evenly spread
    with torch.no_grad():
        loss = load_model(inputs / "model").eval()(input_ids=ids, labels=ids).loss
    assert json.loads((folder / "scores.json").read_text())["text"]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_in_half_precision_models_are_scored_and_trained_ones_are_trained_in_float32(inputs, monkeypatch):
    seen, fine_tune = [], evaluate.fine_tune

    def tuned(job, model, *given, **named):
        seen.append((model.dtype, all(value.requires_grad for value in model.parameters())))
        return fine_tune(job, model, *given, **named)

    monkeypatch.setattr(evaluate, "fine_tune", tuned)
    answered, answer_all = [], evaluate.answer_all
    monkeypatch.setattr(
        evaluate,
        "answer_all",
        lambda model, *given, **named: answered.append(model.dtype) or answer_all(model, *given, **named),
    )
    whole, _ = scored(inputs, "whole", ("first", "plain"))
    half, _ = scored(inputs, "half", ("first", "plain"), precision="bfloat16")
    assert seen == [(torch.float32, True)] * 2
    assert answered == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert half["text"]["loss"] == pytest.approx(whole["text"]["loss"], abs=0.02)
    assert half["text"]["loss"] != whole["text"]["loss"]


def test_a_task_that_generates_nothing_has_likelihoods_alone(inputs, monkeypatch):
    """The same as those of the task that generates; no training rows are needed, and nothing is fine-tuned."""
    whole, _ = scored(inputs, "whole", ("first",))
    (inputs / "first" / "train.jsonl").unlink()
    for name in ("fine_tune", "answer_all"):
        monkeypatch.setattr(evaluate, name, None)
    settings = {"tasks": {"first": {"instructions": "first", "max_new_tokens": 0, "likelihood": True}}}
    folder = run("evaluate", inputs / "alone", settings, model=inputs / "model", task__first=inputs / "first")
    scores, intervals = (json.loads((folder / f"{name}.json").read_text()) for name in ("scores", "intervals"))
    metrics = ["likelihood", "likelihood_normalised", "answer_bits_per_byte"]
    assert scores == {"first": {metric: whole["first"][metric] for metric in metrics}}
    assert not (folder / "answers").exists()

    found = pd.read_csv(folder / "rows" / "first.csv", dtype={"id": str})
    assert list(found.columns) == ["id", *metrics] and list(found.id) == [str(n) for n in range(6)]
    assert set(found.likelihood) <= {0, 1}
    for metric, unit in zip(metrics, (100, 100, 1), strict=True):
        assert unit * found[metric].mean() == pytest.approx(scores["first"][metric], rel=1e-5)
        low, high = intervals["first"][metric]
        assert low <= scores["first"][metric] <= high
    assert 0.1 < scores["first"]["answer_bits_per_byte"] < 20


CONTINUED = {"continued": ["the old stone", "x" * 200, "a city"], "continued_tokens": 5}


def test_texts_are_continued_by_the_model_as_it_is(inputs, capsys):
    scores, _ = scored(inputs, "with", ("first",), **CONTINUED)
    alone, _ = scored(inputs, "without", ("first",))
    assert scores == alone and not (inputs / "without/continuations.json").exists()
    found = json.loads((inputs / "with/continuations.json").read_text())
    model, tokenizer = load_model(inputs / "model").eval(), load_tokenizer(inputs / "model")
    assert found == continuations(model, tokenizer, CONTINUED["continued"], 5, 0)
    assert [sorted(each) for each in found] == [
        ["greedy", "prompt", "sampled"],
        ["problem", "prompt"],
        ["greedy", "prompt", "sampled"],
    ]
    assert f"with: {'x' * 200!r} is not continued: its 200 tokens and 5 more are longer" in capsys.readouterr().err


def test_stopped_between_tasks_and_gone_on_it_continues_the_same(inputs, monkeypatch):
    scored(inputs, "whole", ("first", "plain"), **CONTINUED)
    asked = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(evaluate.Job, "should_stop", lambda job: next(asked, False))
        with pytest.raises(SystemExit):
            scored(inputs, "stopped", ("first", "plain"), **CONTINUED)
    assert not (inputs / "stopped").exists()
    scored(inputs, "stopped", ("first", "plain"), **CONTINUED)
    whole, resumed = ((inputs / name / "continuations.json").read_bytes() for name in ("whole", "stopped"))
    assert whole == resumed
