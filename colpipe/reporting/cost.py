"""What a study was estimated to cost, and what it did."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from colpipe.config.study import Study
from colpipe.jobs.usage import read_account
from colpipe.pipeline.plan import Plan

COLUMNS = [
    "stage",
    "jobs",
    "recorded",
    "flops_estimated",
    "flops",
    "tokens_estimated",
    "tokens",
    "seconds",
    "longest",
    "device_seconds",
    "peak_memory_estimated_mb",
    "peak_memory_mb",
    "peak_device_memory_mb",
    "attempts",
]


def estimate_and_fact(study: Study, results: Path) -> pd.DataFrame:
    """Stage by stage and in all, beside the estimate what the jobs' `run.json` recorded.

    The estimate is of the jobs that are recorded, from the settings and the sizes of the prepared data; those that another
    study shares and has made, such as fetched models, count here as well.

    Args:
        results: `results/<study>/`.

    Returns:
        A frame with `COLUMNS`; memory is that of the largest job, `longest` the seconds of the longest. `recorded`: how many
        jobs have an account. The last row, `all`, has sums, and the largest memory and time.
    """
    plan = Plan(study)
    home = results.parents[1]
    found: dict[str, list[dict]] = defaultdict(list)
    for job, work in plan.work_by_job():
        run = read_account(
            results / Path(job.folder).relative_to(plan.results)
            if job.folder.startswith(plan.results)
            else home / job.folder
        )
        row: dict[str, Any] = {"recorded": run is not None}
        if run:
            row |= {
                "flops_estimated": work.flops,
                "tokens_estimated": work.tokens,
                "peak_memory_estimated_mb": work.main_memory / 1e6 if work.flops else None,
                "longest": run["seconds"],
                **{name: run[name] for name in COLUMNS if name in run and name != "stage"},
            }
        found[job.rule].append(row)
    rows = [{"stage": rule, "jobs": len(each), **_together(each)} for rule, each in found.items()]
    every = [row for each in found.values() for row in each]
    return pd.DataFrame([*rows, {"stage": "all", "jobs": len(every), **_together(every)}], columns=COLUMNS)


def _together(rows: list[dict]) -> dict:
    frame = pd.DataFrame(rows, columns=COLUMNS[2:])
    largest = [name for name in frame.columns if name.startswith(("peak", "longest"))]
    return {name: frame[name].max() if name in largest else frame[name].sum() for name in frame.columns}


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """What people read of it: FLOPs, tokens, seconds and memory, estimated and as they were."""
    return pd.DataFrame(
        {
            "stage": frame.stage.str.replace("_", " "),
            "jobs": frame.recorded,
            "GFLOP, estimated": (frame.flops_estimated / 1e9).round(1),
            "GFLOP": (frame.flops / 1e9).round(1),
            "tokens": frame.tokens,
            "seconds": frame.seconds.round(),
            "longest job": frame.longest.round(),
            "device-seconds": frame.device_seconds.round(),
            "peak MB, estimated": frame.peak_memory_estimated_mb.round(),
            "peak MB": frame.peak_memory_mb,
            "attempts": frame.attempts,
        }
    )
