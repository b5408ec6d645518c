"""The study's summary.csv, cost.csv, report.html and the table that is printed at the end."""

import os
from pathlib import Path

from colpipe.config.loading import load_study
from colpipe.config.study import Study
from colpipe.jobs.artifacts import fingerprint
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import TOLD, Job
from colpipe.pipeline.plan import Plan
from colpipe.reporting.cost import estimate_and_fact
from colpipe.reporting.exports import refusals
from colpipe.reporting.page import page
from colpipe.reporting.summary import summarise
from colpipe.reporting.summary_text import table_text


def main(job: Job[Study]) -> None:
    # By hand it may be one as a user writes it.
    study = load_study(job.settings.model_dump(mode="json", exclude_unset=True), "--settings")
    results = job.output
    job.manifest["parents"] = fingerprints(study, results)
    summary = summarise(study, results)
    summary.to_csv(job.staging / "summary.csv", index=False)
    table = table_text(study, summary, refusals(study, results))
    (job.staging / "summary.txt").write_text(f"{table}\n")
    cost = estimate_and_fact(study, results)
    cost.to_csv(job.staging / "cost.csv", index=False)
    (job.staging / "report.html").write_text(page(study, results, summary, cost))
    job.publish_files()
    if TOLD not in os.environ:  # `colpipe run` ends with the command that shows it
        print(table, flush=True)


def fingerprints(study: Study, results: Path) -> dict[str, str]:
    """Role → content of all that the report shows. There may be thousands, too many for a command line."""
    plan = Plan(study)
    return {
        role: fingerprint(results / Path(folder).relative_to(plan.results)) for role, folder in plan.reported(results)
    }


if __name__ == "__main__":
    run_stage(
        "report",
        __doc__,
        main,
        inputs={},
        settings=Study,
    )
