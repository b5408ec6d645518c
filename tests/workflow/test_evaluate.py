"""The stage `evaluate` by hand on a finished study: tasks that share their fine-tuning, samples, likelihoods, leakage."""

import json

import pandas as pd
import pytest

from tests.conftest import stage

pytestmark = pytest.mark.slow
TUNED = {"steps": 2, "max_length": 110}


def evaluated(finished, output, tasks: dict, train: tuple[str, ...] = ()):
    arguments = ["--model", "chain/llama/small", "--corpus", "stories=data/stories"]
    arguments += ["--task", *(f"{name}=data/{task['instructions']}" for name, task in tasks.items())]
    arguments += ["--train", *train] if train else []
    arguments += ["--settings", json.dumps({"tasks": tasks}), "--output", str(output), "--seed", "0"]
    result = stage("evaluate", *arguments, cwd=finished.results)
    return result, *(json.loads((output / f"{name}.json").read_text()) for name in ("scores", "intervals"))


def test_generation_sets_share_one_fine_tuned_model_and_are_sampled(finished, tmp_path):
    sampled = {"train": "describe", "temperature": 1.0, "samples": 3, "max_new_tokens": 4, "fine_tune": TUNED}
    tasks = {
        "asked": {"instructions": "describe", **sampled},
        "boolq": {"instructions": "boolq", "max_new_tokens": 3, "fine_tune": None, "likelihood": True},
        "again": {"instructions": "boolq", **sampled},
    }
    train = ("asked=data/describe", "again=data/describe")
    result, scores, intervals = evaluated(finished, tmp_path / "scores", tasks, train)
    assert set(scores) == {"stories", *tasks}
    assert {"asked: ", "again: ", "boolq: "} & {
        line.split("step 2/2")[0][-7:] for line in result.stderr.splitlines()
    } == {"asked: "}  # one fine-tuning for both
    assert set(scores["asked"]) == {"rouge_l", "rouge_l_deviation"}
    assert {"likelihood", "likelihood_normalised", "accuracy", "unparsable"} < set(scores["boolq"])
    for name, found in intervals.items():
        for metric, (low, high) in found.items():
            assert low <= scores[name][metric] <= high, (name, metric)
    answers = [json.loads(line) for line in (tmp_path / "scores/answers/asked.jsonl").read_text().splitlines()]
    assert len(answers) == 8 and all(len(row["answers"]) == 3 for row in answers)
    assert any(len(set(row["answers"])) > 1 for row in answers)


def test_leakage_is_counted_for_every_pair_of_sets(finished):
    frame = pd.read_csv(finished.results / "leakage" / "leakage.csv")
    pairs = set(zip(frame.evaluated, frame.trained, strict=True))
    assert pairs == {
        (tested, trained) for tested in ("boolq", "stories") for trained in ("boolq", "describe", "stories")
    }
    assert (frame.exact <= frame.overlapping).all() and (frame.overlapping <= frame.rows).all()
    assert (frame[frame.evaluated == "boolq"].rows == 8).all()
