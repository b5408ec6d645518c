"""One table or figure of the paper, made of this study: numbers (csv), text (md) and, for figures, a picture (svg)."""

from typing import Literal

from colpipe.job import Job, run_stage
from colpipe.reporting.paper import EXHIBITS
from colpipe.reporting.summary import markdown
from colpipe.settings import Strict
from colpipe.study import Study


class Settings(Strict):
    study: Study
    exhibit: Literal[tuple(EXHIBITS)]


def main(job: Job) -> None:
    name, study = job.settings.exhibit, job.settings.study
    exhibit = EXHIBITS[name](study, job.output.parents[1])
    exhibit.numbers.to_csv(job.staging / f"{name}.csv", index=False)
    text = f"{EXHIBITS[name].__doc__}\n\n{markdown(exhibit.table)}\n{exhibit.note}\n"
    (job.staging / f"{name}.md").write_text(text)
    if exhibit.figure:
        (job.staging / f"{name}.svg").write_text(exhibit.figure)
    print(text, flush=True)
    job.publish()


if __name__ == "__main__":
    run_stage(
        "paper",
        __doc__,
        main,
        inputs={"made-of*": "scores and members under the study's results, by path"},
        settings=Settings,
    )
