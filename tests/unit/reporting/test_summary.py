"""The summary and its table from scores written here."""

import json

import pytest

from colpipe.plan import Plan
from colpipe.reporting.figures import loss_against_tokens, loss_curve
from colpipe.reporting.summary import COLUMNS, compact, summarise
from colpipe.stages.report import loss_by_size, page, readable
from colpipe.study import load_study


@pytest.fixture
def results(study, inputs, tmp_path, monkeypatch):
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    loaded = load_study(study)
    folder = tmp_path / "results" / "tiny"
    for number, model in enumerate(Plan(loaded).models):
        scores = {"boolq": {"accuracy": 50.0 + number, "rouge_l": 40.0}, "stories": {"loss": 5.0 + number}}
        (folder / "scores" / model).mkdir(parents=True)
        intervals = {task: {name: (v - 1, v + 1) for name, v in metrics.items()} for task, metrics in scores.items()}
        (folder / "scores" / model / "scores.json").write_text(json.dumps(scores))
        (folder / "scores" / model / "intervals.json").write_text(json.dumps(intervals))
        if model.endswith("/0"):
            (folder / model).mkdir(parents=True)
            alpha = None if "/rand/" in model else [0.2, 0.4] if "/lower/" in model else 0.25
            (folder / model / "manifest.json").write_text(json.dumps({"alpha": alpha}))
        if model.endswith("/512"):
            (folder / model).mkdir(parents=True)
            records = [{"split": "validation", "tokens": tokens, "loss": 6.0 - tokens / 1000} for tokens in (0, 512)]
            records.insert(1, {"split": "train", "tokens": 256, "loss": 5.9})
            lines = "".join(json.dumps(record) + "\n" for record in records)
            (folder / model / "metrics.jsonl").write_text(lines)
    data = folder / "data" / "boolq"
    data.mkdir(parents=True)
    (data / "manifest.json").write_text("{}")
    for split, answers in (("train", ["yes", "yes", "no"]), ("test", ["yes", "no"])):
        rows = [{"instruction": "?", "input": "", "output": answer, "choices": ["yes", "no"]} for answer in answers]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return loaded, folder


def test_a_row_for_every_model_task_and_metric_and_for_guessing(results):
    study, folder = results
    frame = summarise(study, folder)
    assert list(frame.columns) == COLUMNS
    models = Plan(study).models
    assert (
        len(frame) == 3 * len(models) + 3 + 2
    )  # majority: rouge_l, accuracy, unparsable; chance: accuracy, unparsable
    medium = frame[(frame.desnet == "medium") & (frame.metric == "loss")]
    assert medium.params.item() == 20_112 and medium.value.item() == 5.0 + list(models).index("chain/llama/medium")
    assert (medium.low.item(), medium.high.item()) == (medium.value.item() - 1, medium.value.item() + 1)
    majority = frame[(frame.init == "majority") & (frame.metric == "accuracy")]
    assert (majority.value.item(), majority.low.item(), majority.high.item()) == (50, 0, 100)
    random = frame[frame.init == "rand"]
    assert set(random.ancestor) == {""} and random.alpha.isna().all() and set(random.tokens) == {0, 512}


def test_the_table_has_a_row_per_model_and_no_empty_column(results):
    study, folder = results
    table = readable(compact(study, summarise(study, folder)))
    assert list(table.columns[-3:]) == ["stories loss", "boolq rouge-l", "boolq accuracy"]
    assert len(table) == len(Plan(study).models) + 2
    assert table[table.desnet == "upper"].alpha.iloc[0] == "0.25"  # as assembled
    assert table[table.desnet == "lower"].alpha.iloc[0] == "0.30"  # the mean over layers


def test_the_page_shows_the_curves_and_is_the_same_each_time(results):
    study, folder = results
    summary = summarise(study, folder)
    table = readable(compact(study, summary))
    first = page(study, folder, table, summary)
    assert first == page(study, folder, table, summary)
    assert first.count("<svg") == 2 and "20,112" in first and "<script" not in first


def test_losses_by_size_are_those_of_the_chain_and_of_desnets_as_assembled(results):
    study, folder = results
    panels = loss_by_size(study, summarise(study, folder))
    models = list(Plan(study).models)
    assert list(panels) == ["stories"] and list(panels["stories"]) == ["chain", "nested"]
    expected = [
        (study.parameters(study.desnets[desnet].shape), 5.0 + models.index(f"desnets/llama/{desnet}/nested/0"))
        for desnet in ("lower", "upper")
    ]
    assert panels["stories"]["nested"] == expected


def test_a_curve_is_the_validation_losses(results):
    _, folder = results
    curve = loss_curve(folder / "desnets/llama/upper/nested/512")
    assert curve == [(0, 6.0), (512, pytest.approx(5.488))]
    assert loss_curve(folder / "nowhere") == []
    assert "rand" in loss_against_tokens({"upper": {"rand": curve}})
