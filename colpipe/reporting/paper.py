"""Tables and figures of the paper, made of a finished study: ours, and the paper's numbers beside them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from colpipe.exhibits import pairs, rivals
from colpipe.plan import Plan
from colpipe.reporting.figures import bars, raw_and_smoothed, smoothed
from colpipe.study import Study

PAPER = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text())
MAIN = ("loss", "rouge_l", "accuracy")  # the metrics that are shown


class Exhibit(NamedTuple):
    """A table or figure.

    Attributes:
        numbers: one row per number.
        table: as people read it.
        figure: SVG text, or empty.
        note: what there is to know before comparing it with the paper's.
    """

    numbers: pd.DataFrame
    table: pd.DataFrame
    figure: str
    note: str


def table3(study: Study, results: Path) -> Exhibit:
    """Checkpoints of the chain, distilled stepwise and directly."""
    plan, rows = Plan(study), []
    for direct, stepwise in pairs(study):
        for way, ancestor in (("direct", direct), ("stepwise", stepwise)):
            models = {"ancestor": plan.origin(ancestor).removeprefix(f"{plan.results}/")}
            models |= {member: f"chain/{ancestor}/{member}" for member in study.chain}
            for place, (model, path) in enumerate(models.items()):
                for task, metric, value in _scores(results / "scores" / path):
                    paper = PAPER["table3"]["rows"][way][place] if place < 4 and metric == "rouge_l" else None
                    settings = study.distill_settings(ancestor, study.members()[-1])
                    rows.append(
                        {
                            "objective": settings.objective,
                            "way": way,
                            "chain": ancestor,
                            "task": task,
                            "metric": metric,
                            "model": model,
                            "paper": paper if task == "dolly" else None,
                            "ours": value,
                            "seed": study.seed,
                        }
                    )
    numbers = pd.DataFrame(rows)
    table = numbers.pivot_table(
        index=["objective", "way", "task", "metric"], columns="model", values="ours", sort=False
    ).reset_index()
    note = (
        "The paper: Rouge-L on Dolly, GPT2-XL to GPT2-L, M, B: direct 27.94, -, -, 23.30; stepwise 27.94, 27.77, 27.63, "
        "26.02. Task scores are taken after fine-tuning on the task, losses (nats per token) before it."
    )
    return Exhibit(numbers, table.round(3), "", note)


def figure5a(study: Study, results: Path) -> Exhibit:
    """DesNets of the chain against DesNets of the same shape that were distilled on their own."""
    desnets, rows = rivals(study), []
    for path, columns in Plan(study).models.items():
        if columns["desnet"] in desnets:
            shown = {name: columns[name] for name in ("ancestor", "desnet", "init", "tokens")}
            for task, metric, value in _scores(results / "scores" / path):
                rows.append({**shown, "task": task, "metric": metric, "ours": value, "seed": study.seed})
    numbers = pd.DataFrame(rows)
    numbers["column"] = numbers.task + " " + numbers.metric.str.replace("_", "-")
    keys = ["desnet", "ancestor", "init", "tokens"]
    table = numbers.pivot_table(index=keys, columns="column", values="ours", sort=False, dropna=False)
    table = table.dropna(how="all").reset_index()
    panels = {
        f"{desnet}, {tokens} tokens: {column}": dict(zip(part.init, part.ours, strict=True))
        for (desnet, tokens, column), part in numbers.groupby(["desnet", "tokens", "column"], sort=False)
    }
    note = "The paper shows bars without numbers: DesNet-138M on Dolly, MMLU and BoolQ, ancestor GPT2-XL."
    return Exhibit(numbers.drop(columns="column"), table.round(3), bars(panels), note)


def figure5b(study: Study, results: Path) -> Exhibit:
    """Training losses of direct and stepwise distillation, of the members that have another teacher."""
    panels, rows = {}, []
    for direct, stepwise in pairs(study):
        for member in study.members()[1:]:
            objective, curves = study.distill_settings(direct, member).objective, {}
            for way, ancestor in (("direct", direct), ("stepwise", stepwise)):
                steps, raw = _training_losses(results / "chain" / ancestor / member)
                smooth = smoothed(raw)
                curves[way] = (steps, raw, smooth)
                rows += [
                    {"objective": objective, "member": member, "way": way, "step": step, "raw": one, "smoothed": other}
                    for step, one, other in zip(steps, raw, smooth, strict=True)
                ]
            panels[f"{member}, {objective}"] = curves
    numbers = pd.DataFrame(rows)
    second = numbers[numbers.step > numbers.step.max() / 2]  # warm-up and descent are no noise
    ways = second.assign(apart=(second.raw - second.smoothed) ** 2).groupby(["objective", "member", "way"], sort=False)
    table = pd.DataFrame(
        {"last smoothed loss": ways.smoothed.last(), "deviation": ways.apart.mean() ** 0.5}
    ).reset_index()
    note = (
        "Losses of different teachers are distances to different things: their levels say little, their noise is what the "
        "paper compares. Deviation: root mean square of raw minus smoothed over the second half of training."
    )
    return Exhibit(numbers.assign(seed=study.seed), table.round(4), raw_and_smoothed(panels), note)


EXHIBITS: dict[str, Callable[[Study, Path], Exhibit]] = {"table3": table3, "figure5a": figure5a, "figure5b": figure5b}


def _scores(folder: Path) -> Iterator[tuple[str, str, float]]:
    """(task, metric, value) of the main metrics of a model."""
    for task, metrics in json.loads((folder / "scores.json").read_text()).items():
        yield from ((task, metric, metrics[metric]) for metric in MAIN if metric in metrics)


def _training_losses(folder: Path) -> tuple[list[int], list[float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [record for record in records if record["split"] == "train"]
    return [record["step"] for record in train], [record["loss"] for record in train]
