"""What cutting costs: the loss of subsets of a model, untrained, by what they keep (`select`); to choose a chain by hand.

The model is measured once; every cut changes one or more axes and is scored on the corpus's validation text. The head is
untied, so that a rotation stays exact; only `hidden` differs between `rank` and `rotate`.
"""

import pandas as pd

from colpipe.config.parts import Positive, Select, Strict
from colpipe.data.tokens import Blocks
from colpipe.errors import ColpipeError
from colpipe.evaluation.perplexity import held_out_loss
from colpipe.evaluation.uniform import is_worse, uniform_guess, uniform_loss
from colpipe.hf.models import load_model
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job
from colpipe.learngene.importance import measure, reorder, signal_gain
from colpipe.learngene.linit import take_subset
from colpipe.learngene.weights import Weights

AXES = {"layers": "layer", "hidden": "hidden", "ffn": "ffn", "kv_heads": "group", "heads": "head"}


class Settings(Strict):
    cuts: list[dict[str, Positive]]
    """Each a mapping of layers, hidden, ffn, heads or kv_heads to what is kept."""
    selects: list[Select] = ["first", "even", "rank", "rotate"]
    tokens: Positive = 8192
    """To measure importance on, and to score on."""
    max_length: Positive = 128


def main(job: Job[Settings]) -> None:
    settings = job.settings
    folder, corpus, length = job.parents["model"], job.parents["corpus"], settings.max_length
    device = pick_device(job.runtime.device)
    model = load_model(folder).to(device).eval()
    importance = measure(model, Blocks(corpus, "train", length, settings.tokens).stacked().split(8))

    def score(model) -> float:
        return held_out_loss(model.to(device), corpus, "validation", length, settings.tokens)["loss"]

    rows: list[dict] = []
    for select in settings.selects:
        source, known = Weights(folder), {}
        if select in ("rank", "rotate"):
            ordered = reorder(source, importance, select, tied=False)
            source, known = Weights(ordered.load()), ordered.details
        for cut in settings.cuts:
            if select == "even" and "layers" not in cut:
                continue  # it differs from `first` in the layers only
            if job.should_stop():
                job.stop()
            subset = take_subset(
                source,
                _target(source, cut),
                select,
                known.get("ranking"),
                tied=False,
                gain=signal_gain(
                    known.get("energy"), source.sizes["hidden"], cut.get("hidden", source.sizes["hidden"])
                ),
            )
            named = ", ".join(f"{axis} {size}" for axis, size in cut.items()) or "whole"
            rows.append({"select": select, "cut": named, "parameters": subset.parameters, "loss": score(subset.load())})
            job.say(f"{select}, {named}: {rows[-1]['loss']:.2f}")
    table = pd.DataFrame(rows)
    table.to_csv(job.staging / "cuts.csv", index=False, float_format="%.4f")
    print(table.pivot_table(index="cut", columns="select", values="loss", sort=False).round(2).to_string())
    vocabulary = Weights(folder).sizes["vocabulary"]
    worse = sum(is_worse(row["loss"], vocabulary) for row in rows)
    print(f"Loss: nats per token; {uniform_guess(vocabulary)}, {worse} are worse: broken.")
    job.publish(uniform_loss=uniform_loss(vocabulary), broken=worse)


def _target(source: Weights, cut: dict[str, int]) -> dict[str, int]:
    """Size of every axis after a cut; queries follow their key/value heads.

    Raises:
        ColpipeError: an axis that cannot be cut.
    """
    if unknown := set(cut) - set(AXES):
        raise ColpipeError(f"cuts: {', '.join(sorted(unknown))}: unknown; known are {', '.join(AXES)}")
    target = {**source.sizes, **{AXES[axis]: size for axis, size in cut.items()}}
    if "kv_heads" in cut:
        target["head"] = cut["kv_heads"] * target["query"]
    return target


if __name__ == "__main__":
    run_stage(
        "cuts",
        __doc__,
        main,
        inputs={"model": "model to cut", "corpus": "prepared corpus of its tokenizer"},
        settings=Settings,
        package="tools",
    )
