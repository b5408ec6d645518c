"""The summary and its table from scores written here."""

import json

import pandas as pd
import pytest

from colpipe.pipeline.plan import Plan
from colpipe.reporting.summary import COLUMNS, summarise
from colpipe.reporting.summary_text import (
    WIDTH,
    broken_models,
    compact,
    in_words,
    kept_remarks,
    readable,
    remarks,
    table_text,
)


def test_a_row_for_every_model_task_and_metric_and_for_guessing(results):
    study, folder = results
    frame = summarise(study, folder)
    assert list(frame.columns) == COLUMNS
    models = Plan(study).models
    assert (
        len(frame) == 3 * len(models) + 3 + 2 + 1
    )  # majority: rouge_l, accuracy, unparsable; chance: accuracy, unparsable; uniform: loss
    medium = frame[(frame.desnet == "medium") & (frame.metric == "loss")]
    assert medium.params.item() == 20_112 and medium.value.item() == 5.0 + list(models).index("chain/llama/medium")
    assert (medium.low.item(), medium.high.item()) == (medium.value.item() - 1, medium.value.item() + 1)
    majority = frame[(frame.init == "majority") & (frame.metric == "accuracy")]
    assert (majority.value.item(), majority.low.item(), majority.high.item()) == (50, 0, 100)
    random = frame[frame.init == "rand"]
    assert set(random.ancestor) == {""} and random.alpha.isna().all() and set(random.tokens) == {0, 512}


def test_tokens_to_recover_are_those_of_recoveries_that_got_there(stopping):
    study, folder = stopping
    frame = summarise(study, folder)
    found = frame[frame.metric == "tokens_to_recover"]
    assert set(found.task) == {"stories"} and set(found.value) == {384} and found.low.isna().all()
    assert list(zip(found.desnet, found.init, found.tokens, strict=True)) == [
        ("upper", "nested", 512),
        ("upper", "rand", 512),
        ("lower", "nested", 512),
    ]
    line = "Recovery stops at 0.95 of the ancestor's quality on validation text: 3 of 4 got there, not within their budgets"
    assert remarks(study, frame)[-1] == f"{line}: lower rand 512."
    assert "tokens" not in " ".join(compact(study, frame).columns[6:])
    study.stages.recover = study.stages.recover.model_copy(update={"stop_at": 5.6})
    (folder / "desnets/scratch/lower/rand/512/manifest.json").write_text(
        (folder / "desnets/llama/lower/nested/512/manifest.json").read_text()
    )
    line = "Recovery stops at a loss of 5.6 on validation text: 4 of 4 got there."
    assert remarks(study, summarise(study, folder))[-1] == line
    study.perplexity = []
    assert remarks(study, frame.iloc[:0])[-1].startswith(
        "Recovery stops at a loss of 5.6 on validation text: 0 of 4 got"
    )


def test_the_table_has_a_row_per_model_and_no_empty_column(results):
    study, folder = results
    table = readable(compact(study, summarise(study, folder)))
    assert list(table.columns[-3:]) == ["stories loss", "boolq rouge-l", "boolq accuracy"]
    assert len(table) == len(Plan(study).models) + 3
    assert table[table.desnet == "upper"].alpha.iloc[0] == "0.25"  # as assembled
    assert table[table.desnet == "lower"].alpha.iloc[0] == "0.30"  # the mean over layers


def test_a_uniform_guess_stands_once_beside_losses_and_what_is_worse_is_broken(results):
    """ln 512 = 6.238: of losses 5, 6, 7 … the first two are better."""
    study, folder = results
    summary = summarise(study, folder)
    [guess] = summary[summary.init == "uniform"].to_dict("records")
    assert (guess["task"], guess["metric"], round(guess["value"], 3)) == ("stories", "loss", 6.238)
    worse = broken_models(study, summary)
    random = sum(columns["init"] == "rand" and columns["tokens"] == 0 for columns in Plan(study).models.values())
    assert len(worse) == len(Plan(study).models) - 2 - random
    assert "llama upper nested 0" in worse and "upper rand 512" in worse and "upper rand 0" not in worse
    first, second = remarks(study, summary)
    assert first == "Loss: nats per token; a uniform guess has 6.24 (ln 512)."
    assert second.startswith(f"Broken, worse than a uniform guess: {len(worse)} ({worse[0]}, ")
    good = summary.assign(
        value=[2.0 if metric == "loss" else value for metric, value in zip(summary.metric, summary.value, strict=True)]
    )
    assert remarks(study, good) == [first]


def test_the_table_as_text_says_once_what_is_the_same_in_all_rows(results):
    study, folder = results
    lines = table_text(study, summarise(study, folder)).splitlines()
    assert lines[0] == "In all rows that have one: ancestor llama."
    assert [line.split() for line in lines[1:3]] == [
        ["stories", "boolq", "boolq"],
        ["desnet", "params", "init", "alpha", "tokens", "loss", "rouge-l", "accuracy"],
    ]
    assert lines[3].split()[:3] == ["bridge", "71,360", "seqkd"]
    assert "Loss: nats per token; a uniform guess has 6.24 (ln 512)." in lines
    assert max(map(len, lines)) <= WIDTH


def test_what_is_too_wide_for_the_table_is_named_below_it(results):
    """Rouge-L and likelihood beside an accuracy go first, from the right; then the last columns."""
    study, folder = results
    summary = summarise(study, folder)
    rows = summary[summary.task == "boolq"]
    names = [f"one-task-{number}" for number in range(4)]
    likelihood = rows[rows.metric == "accuracy"].assign(metric="likelihood", task="one-task-1")
    wide = pd.concat([summary, *(rows.assign(task=name) for name in names), likelihood], ignore_index=True)
    study = study.model_copy(update={"tasks": {**study.tasks, **dict.fromkeys(names, study.tasks["boolq"])}})
    lines = table_text(study, wide).splitlines()
    assert max(map(len, lines)) <= WIDTH
    text = " ".join(lines)
    assert (
        "Too wide for this table, and in summary.csv: one-task-3 rouge-l, one-task-2 rouge-l, one-task-1 rouge-l, "
        "one-task-0 rouge-l, boolq rouge-l, one-task-1 likelihood." in text
    )
    assert lines[1].split() == ["stories", "boolq", *names]
    assert lines[2].split()[-6:] == ["loss", *["accuracy"] * 5]


def test_models_are_compared_with_what_their_chain_descends_from(compared):
    study, folder = compared
    frame, models = summarise(study, folder), list(Plan(study).models)
    assert models[0] == "bridges/llama"
    for number, columns in enumerate(Plan(study).models.values()):
        own = frame[(frame.desnet == columns["desnet"]) & (frame.init == columns["init"])]
        own = own[own.tokens.fillna(-1) == columns.get("tokens", -1)].set_index(["task", "metric"])
        piqa, words = 100 * (60 - 5 * number) / 60, 100 - 5 * number  # random ones too
        assert own.value["piqa", "kept"] == pytest.approx(piqa) and own.value["words", "kept"] == pytest.approx(words)
        assert own.value["all tasks", "kept"] == pytest.approx((piqa + words) / 2)
        assert own.value["guessed", "likelihood_normalised_difference"] == pytest.approx(-2.5 * number)
        assert ("guessed", "kept") not in own.index  # 70 of 200 is not above a third
        assert own.low["piqa", "kept"] <= piqa <= own.high["piqa", "kept"]
        assert own.value["words", "answer_bits_per_byte"] == 1 + number / 8
    assert number == len(models) - 1 > 5
    chance = frame[frame.init == "chance"].set_index(["task", "metric"])
    assert chance.value["piqa", "likelihood_normalised"] == 50
    assert chance.value["guessed", "likelihood"] == pytest.approx(100 / 3)
    assert "words" not in chance.index.get_level_values("task")
    assert not len(frame[frame.task.isin(["piqa", "words", "guessed"]) & frame.metric.isin(["rouge_l", "accuracy"])])


def test_kept_stands_beside_the_loss_and_a_task_at_chance_for_the_ancestor_is_not_in_the_table(compared):
    study, folder = compared
    summary = summarise(study, folder)
    table = readable(compact(study, summary))
    assert list(table.columns[6:]) == [
        "stories loss",
        "kept",
        "boolq rouge-l",
        "boolq accuracy",
        "piqa acc",
        "words acc",
    ]
    bridge, large = table.iloc[0], table.iloc[1]
    assert (bridge.kept, bridge["piqa acc"], bridge["words acc"]) == ("100 ±0", "80.0", "50.0")
    [row] = summary[(summary.desnet == "large") & (summary.task == "all tasks")].itertuples()
    assert large.kept == f"{(100 * 55 / 60 + 95) / 2:.0f} ±{(row.high - row.low) / 2:.0f}" and row.high > row.low
    text = table_text(study, summary)
    assert max(map(len, text.splitlines())) <= WIDTH
    words = " ".join(text.split())
    assert (
        "Kept: the part of the ancestor's lead over chance, by log-likelihood, in percent ± half its 95 % interval; "
        in words
    )
    assert (
        "interval; over piqa, words. At chance for the ancestor, by log-likelihood, so in summary.csv only: guessed."
        in words
    )
    assert "chance" in set(table.init)
    alone = study.model_copy(update={"tasks": {"guessed": study.tasks["guessed"]}})
    summary = summarise(alone, folder)
    table = compact(alone, summary)
    assert list(table.columns[6:]) == ["stories loss"] and "chance" not in set(table.init)  # a row of blanks
    assert kept_remarks(summary) == ["At chance for the ancestor, by log-likelihood, so in summary.csv only: guessed."]


def test_an_ancestor_that_was_fetched_has_the_parameters_of_its_manifest(results):
    study, folder = results
    study.ancestors["llama"].bridge = None
    (folder / "scores/sft").mkdir()
    (folder / "scores/bridges/llama").rename(folder / "scores/sft/llama")
    (folder / "sft/llama").mkdir(parents=True)
    (folder / "sft/llama/manifest.json").write_text(json.dumps({"parameters": 37_792}))
    summary = summarise(study, folder)
    assert set(summary[summary.desnet == "llama"].params) == {37_792}


def test_the_best_of_each_desnet_in_words(compared):
    study, folder = compared
    summary = summarise(study, folder)
    [upper, lower] = in_words(study, summary)
    models = list(Plan(study).models)
    number = models.index("desnets/llama/upper/nested/0")  # its loss is 5 and this, 512 tokens later one more
    kept = summary[(summary.task == "all tasks") & (summary.ancestor == "llama")]
    [row] = kept[(kept.desnet == "upper") & (kept.tokens == 0)].itertuples()
    [bridge] = set(summary[summary.desnet == "bridge"].params)
    assert upper == (
        f"upper (nested, 0 tokens): {row.params:,} parameters, {100 * row.params / bridge:.0f} % of its ancestor's bridge; "
        f"loss {5 + number:.3f}, {number:.3f} above it; keeps {row.value:.0f} % ±{(row.high - row.low) / 2:.0f} of its lead "
        "over chance."
    )
    assert lower.startswith("lower (nested, 0 tokens): ") and "rand" not in upper + lower
    text = " ".join(table_text(study, summary).split())
    assert text.endswith(f"{upper} {lower}")
    summary.loc[(summary.desnet == "upper") & (summary.tokens == 512) & (summary.metric == "loss"), "value"] = 4.5
    assert next(in_words(study, summary)).startswith("upper (nested, 512 tokens): ")
    assert "; loss 4.500, 0.500 below it" in next(in_words(study, summary))
    study.perplexity = []
    assert not list(in_words(study, summary))
