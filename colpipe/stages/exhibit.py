"""One table or figure of the paper, made of this study: numbers (csv), text (md) and, for figures, pictures (svg, png)."""

from typing import Any

from colpipe.config.parts import Positive, Strict
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.reporting.paper import build, sizes, with_uniform_guess
from colpipe.reporting.paper_figures import pictures


class Settings(Strict):
    exhibit: str
    shown: dict[str, Any]
    models: dict[str, str]
    stand_ins: dict[str, str] = {}
    sizes: dict[str, dict[str, float]] = {}
    vocabulary: Positive | None = None
    """Of the models, where losses are shown."""


def main(job: Job[Settings]) -> None:
    settings, name = job.settings, job.settings.exhibit
    if settings.sizes:
        built = sizes(settings.shown, settings.models, settings.sizes)
    else:
        results = job.output.parents[1]
        built = build(name, settings.shown, settings.models, settings.stand_ins, job.seed, results)
        built = with_uniform_guess(built, settings.vocabulary) if settings.vocabulary else built
    built.numbers.to_csv(job.staging / f"{name}.csv", index=False)
    text = f"{heading(settings)}\n{built.text}"
    (job.staging / f"{name}.md").write_text(text)
    if built.figure:
        svg, png = pictures(built.figure)
        (job.staging / f"{name}.svg").write_text(svg)
        (job.staging / f"{name}.png").write_bytes(png)
    print(text, flush=True)
    job.publish()


def heading(settings: Settings) -> str:
    """What it shows, how to read it, and what stands for the paper's names."""
    shown, name = settings.shown, settings.exhibit
    place = name.replace("table", "Table ").replace("figure", "Figure ")
    lines = [f"# {place}: {shown['title']}", f"The paper, {shown['where']}.{_reading(shown['metric'])}"]
    if note := shown.get("note"):
        lines.append(note)
    if settings.stand_ins:
        pairs = ", ".join(f"{ours} for {paper}" for paper, ours in settings.stand_ins.items())
        lines.append(f"Stand-ins: {pairs}. Levels are not those of the paper's models; compare differences.")
    return "\n\n".join(lines) + "\n"


def _reading(metric: str) -> str:
    return {
        "rouge_l": " Rouge-L, percent, after fine-tuning; ours, and the paper's in brackets. – is not in this study.",
        "parameters": " Ours, and the paper's in brackets; parameters in millions.",
        "steps": " Steps until the last training loss of the random one is reached, by means over the steps before.",
    }.get(metric, "")


if __name__ == "__main__":
    run_stage(
        "exhibit",
        __doc__,
        main,
        inputs={"made-of*": "scores, DesNets or members under the study's results, by path"},
        settings=Settings,
    )
