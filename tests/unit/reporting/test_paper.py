"""Tables and figures hold the scores that they are made of, and what is worked out from them."""

import json

import pytest

from colpipe.reporting import paper
from colpipe.reporting.paper_figures import pictures

SCORED = {"metric": "rouge_l", "title": "", "where": ""}


@pytest.fixture
def results(tmp_path):
    """Scores of two models, and training losses of two."""

    def score(path: str, **tasks: float) -> None:
        folder = tmp_path / "scores" / path
        folder.mkdir(parents=True)
        scores = {task: {"rouge_l": value, "accuracy": value + 1} for task, value in tasks.items()}
        scores["stories"] = {"loss": 3.0, "perplexity": 20.0}
        (folder / "scores.json").write_text(json.dumps(scores))
        ends = {
            task: {metric: [value - 2, value + 2] for metric, value in found.items()} for task, found in scores.items()
        }
        (folder / "intervals.json").write_text(json.dumps(ends))

    def train(path: str, losses: list[float]) -> None:
        (tmp_path / path).mkdir(parents=True)
        records = [{"split": "train", "step": step + 1, "loss": loss} for step, loss in enumerate(losses)]
        records += [{"split": "validation", "step": len(losses), "loss": 0.0}, {"split": "job", "seconds": 1}]
        (tmp_path / path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    score("desnets/a/x/linit/0", boolq=50.0, mine=30.0)
    score("desnets/scratch/x/rand/1k", boolq=40.0, mine=20.0)
    score("desnets/scratch/x/rand/2k", boolq=55.0, mine=29.0)
    train("desnets/a/x/linit/1k", [3.95 - 0.1 * step for step in range(30)])
    train("desnets/scratch/x/rand/1k", [5.0 - 0.1 * step for step in range(30)])
    return tmp_path


def table(**part) -> dict:
    return {**SCORED, "parts": [part]}


def test_scores_averages_and_differences(results):
    shown = table(
        same={"model": "X", "ancestor": "A", "tokens": 0},
        columns={"task": ["boolq", "dolly", "average"]},
        rows=["init"],
        values={"linit": [70.0, 20.0, 45.0], "rand": [1.0, None, 2.0]},
    )
    models = {"A/X/linit/0": "desnets/a/x/linit/0"}
    made = paper.build("table0", shown, models, {"dolly": "mine"}, 3, results)
    main = made.numbers[made.numbers.metric == "rouge_l"].set_index(["init", "task"])
    assert main.loc[("linit", "boolq"), ["ours", "paper", "difference", "low", "high", "seed"]].tolist() == [
        50.0, 70.0, -20.0, 48.0, 52.0, 3,
    ]  # fmt: skip
    assert main.loc[("linit", "average"), "ours"] == 40.0 and main.loc[("linit", "average"), "difference"] == -5.0
    assert main.loc[("linit", "dolly"), "ours"] == 30.0  # by what stands for it
    assert main.loc["rand"][["ours", "difference", "made_of"]].isna().all(axis=None)
    others = made.numbers[made.numbers.metric != "rouge_l"].set_index(["task", "metric"]).ours
    assert others.to_dict() == {("boolq", "accuracy"): 51.0, ("dolly", "accuracy"): 31.0, ("stories", "loss"): 3.0}
    assert "| linit | 50.00 (70.00) | 30.00 (20.00) | 40.00 (45.00) |" in made.text
    assert "| rand | – (1.00) | – | – (2.00) |" in made.text


def test_tokens_saved(results):
    shown = {
        **SCORED,
        "parts": [
            {"same": {"init": "linit", "tokens": 0}, "columns": {"ancestor": ["A"]}, "rows": ["model", "task"],
             "values": {"X": {"boolq": [9.0], "mine": [1.0]}}},
            {"same": {"init": "rand"}, "columns": {"tokens": ["1k", "2k"]}, "rows": ["model", "task"],
             "values": {"X": {"boolq": [8.0, 9.0], "mine": [2.0, 3.0]}}},
        ],
    }  # fmt: skip
    models = {"A/X/linit/0": "desnets/a/x/linit/0"}
    models |= {f"-/X/rand/{tokens}": f"desnets/scratch/x/rand/{tokens}" for tokens in ("1k", "2k")}
    made = paper.build("figure3", shown, models, {}, 0, results)
    saved = paper.tokens_saved(made.numbers).set_index("task")
    assert saved.loc["boolq", ["ours", "paper"]].tolist() == ["1k", "2k"]  # 40 and 55 against 50; 8 and 9 against 9
    assert saved.loc["mine", ["ours", "paper"]].tolist() == ["2k", "–"]
    svg, png = pictures(made.figure)
    assert svg.startswith("<svg") and png.startswith(b"\x89PNG")


def test_steps_to_the_last_loss_of_the_random_one(results):
    shown = {
        "metric": "steps",
        "parts": [
            {"same": {"ancestor": "A", "model": "X"}, "columns": {"init": ["linit", "rand"]}, "rows": ["tokens"],
             "values": {"1k": [140, 30500]}}
        ],
    }  # fmt: skip
    models = {"A/X/linit/1k": "desnets/a/x/linit/1k", "A/X/rand/1k": "desnets/scratch/x/rand/1k"}
    numbers, found, _ = paper.convergence(shown, models, results)
    row = found.iloc[0]
    # The mean of the random one's last nine steps is 2.5; that of the other one's steps 12 to 20 is below.
    assert row["last loss of rand"] == pytest.approx(2.5) and row["first loss of linit"] == 3.95
    assert (row["steps linit"], row["steps rand"], row["speed-up"]) == (20, 30, 1.5)
    assert (row["the paper's steps"], row["speed-up there"]) == ("140, 30500", 217.86)
    assert len(numbers) == 60 and set(numbers.init) == {"linit", "rand"}


def test_noise_of_the_second_half(results):
    losses = [2.0] * 20 + [2.1, 1.9] * 10
    (results / "chain/a/small").mkdir(parents=True)
    lines = [json.dumps({"split": "train", "step": step + 1, "loss": loss}) for step, loss in enumerate(losses)]
    (results / "chain/a/small/metrics.jsonl").write_text("\n".join(lines))
    shown = {
        "metric": "training loss",
        "parts": [{"columns": {"ancestor": ["A"]}, "rows": ["model"], "values": {"B": []}}],
    }
    _, found, _ = paper.noise(shown, {"A/B/-/-": "chain/a/small"}, results)
    assert found.deviation[0] == pytest.approx(0.1, abs=0.02)


def test_a_uniform_guess_is_said_once_where_losses_on_text_are_shown(results):
    part = {"same": {"ancestor": "A", "task": "boolq", "tokens": 0}, "rows": ["model"], "values": {"X": [1]}}
    shown = {**SCORED, "parts": [{**part, "columns": {"init": ["linit"]}}]}
    made = paper.build("figure5a", shown, {"A/X/linit/0": "desnets/a/x/linit/0"}, {}, 0, results)
    told = paper.with_uniform_guess(made, 512)
    assert told.text == f"{made.text}\nLoss: a uniform guess has 6.24 (ln 512).\n"
    assert told.figure.get_supxlabel() == "loss: a uniform guess has 6.24 (ln 512)"
    without = made._replace(numbers=made.numbers[made.numbers.metric != "loss"])
    assert paper.with_uniform_guess(without, 512) == without


def test_sizes_beside_the_papers():
    shown = {"metric": "parameters", "parts": [
        {"columns": {"size": ["parameters", "layers"]}, "rows": ["model"], "values": {"X": [138, 14], "Y": [1, 2]}}
    ]}  # fmt: skip
    made = paper.sizes(shown, {"-/X/-/-": "desnets/x"}, {"desnets/x": {"parameters": 138.1, "layers": 13}})
    assert made.numbers.difference.tolist()[:2] == [0.1, -1] and made.numbers.ours.isna().tolist() == [
        False,
        False,
        True,
        True,
    ]
    assert "| X | 138.10 (138) | 13 (14) |" in made.text


@pytest.mark.parametrize(
    "name, init, tokens", [("figure6", "alpha-0.1", "0"), ("figure10", "linit", "0"), ("figure5a", "linit", "0")]
)
def test_figures_are_equal_for_equal_numbers(results, name, init, tokens):
    part = {"same": {"ancestor": "A", "task": "boolq"}, "rows": ["model"], "values": {"X": []}}
    if name == "figure10":
        part["columns"] = {"tokens": ["0", "1k"], "init": ["linit", "rand"]}
        models = {"A/X/linit/0": "desnets/a/x/linit/0", "A/X/rand/0": "desnets/scratch/x/rand/1k"}
    else:
        part["same"]["tokens"] = 0
        part["columns"] = {"init": [init]}
        models = {f"A/X/{init}/0": "desnets/a/x/linit/0"}
    draws = [pictures(paper.build(name, {**SCORED, "parts": [part]}, models, {}, 0, results).figure) for _ in range(2)]
    assert draws[0] == draws[1]
