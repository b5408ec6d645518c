"""What a study costs, told before it is spent: jobs, parameters, memory, tokens, FLOPs, hours (no torch here).

    colpipe estimate my-study.yaml

Below it, what many sizes cost by a chain, by distilling each and by pre-training each (Figure 1 of the paper).
"""

import json
import platform
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colpipe.architectures.flops import REAL
from colpipe.config.loading import load_study, read_study, remarks
from colpipe.config.study import Study
from colpipe.cost.devices import (
    MEASUREMENTS,
    PEAKS,
    UTILISATION,
    Measured,
    device_rates,
    find_measurements,
    measured_text,
    seconds_on,
)
from colpipe.cost.inputs import EXACT, least_sure, model_in
from colpipe.cost.passes import Work
from colpipe.errors import ColpipeError
from colpipe.jobs.processor import NO_BFLOAT16, cores, has_bfloat16, lacks_bfloat16, training_rate
from colpipe.jobs.usage import read_account
from colpipe.pipeline.graph import PlannedJob
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.rules import RULES
from colpipe.pipeline.schedule import START, is_alone, seconds_together, threads_of
from colpipe.reporting.many_sizes import SizesCost, estimate_sizes, recorded_sizes
from colpipe.tools.parser import Parser

GGUF_BYTES = {"f16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32}  # a weight
WRITERS = ("pretrain", "sft", "bridge", "order", "distill", "distill_desnet", "assemble", "recover")  # of a model each


@dataclass(frozen=True)
class Stage:
    """All jobs of a rule together."""

    rule: str
    jobs: int
    finished: int
    parameters: int
    """of the largest model that learns, or is read where none learns"""
    memory: float
    """bytes of main memory on a CPU, of the largest job"""
    tokens: float
    flops: dict[str, float]
    """by precision"""
    bound: str


def stages(plan: Plan) -> list[Stage]:
    """The rules of a study in the order in which their first jobs can run."""
    found: dict[str, list[tuple[bool, Work]]] = defaultdict(list)
    for job, work in plan.work_by_job():
        found[job.rule].append((_is_done(job), work))
    return [_together(rule, works) for rule, works in found.items()]


def _is_done(job: PlannedJob) -> bool:
    return (Path(job.folder) / "manifest.json").exists()


def _together(rule: str, works: list[tuple[bool, Work]]) -> Stage:
    flops: dict[str, float] = defaultdict(float)
    for _, work in works:
        for precision, count in work.flops_by_precision.items():
            flops[precision] += count
    every = [work for _, work in works]
    return Stage(
        rule,
        len(works),
        sum(done for done, _ in works),
        max(work.trained or work.read for work in every),
        max(work.main_memory if work.flops else 0 for work in every),
        sum(work.tokens for work in every),
        dict(flops),
        least_sure(*(work.bound for work in every)),
    )


def cpu_rates(results: Path, host: str) -> dict[str, float]:
    """Stage → FLOP/s that jobs reached on a CPU of this host, by the `run.json` of all studies under a folder;
    `` is that of all stages together."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for path in results.glob("*/**/run.json"):
        run = read_account(path.parent)
        known = run and run["host"] == host and run["device"] == "cpu" and run["flops"] > 0
        for stage in (run["stage"], "") if known else ():
            sums[stage][0] += run["flops"]
            sums[stage][1] += run["device_seconds"]
    return {stage: flops / seconds for stage, (flops, seconds) in sums.items() if seconds}


def cpu_rate(
    rule: str, rates: dict[str, float], count: int, precision: str = "float32", is_alone: bool = False
) -> float:
    """FLOP/s of a job of a rule on the threads that it gets on this machine of so many cores: as in its own past runs, where
    there are some, else by a measurement of one core."""
    recorded = rates.get(RULES[rule].stage or rule) or rates.get("")
    return recorded or threads_of(rule, count, is_alone) * training_rate(precision)


def run_seconds(plan: Plan, rates: dict[str, float], count: int, device: str | None = None) -> float:
    """From the start to the end of a run of all jobs that are not done: side by side on the cores of this machine, or one
    after the other on one device."""
    works = {job.folder: work for job, work in plan.work_by_job()}
    jobs = [job for job in plan.jobs() if job.rule and not _is_done(job)]
    if device:
        return sum(START + seconds_on(device, works[job.folder].flops_by_precision) for job in jobs)

    def alone(job: PlannedJob) -> bool:
        return is_alone(plan.study, job.rule, job.wildcards)

    def seconds(job: PlannedJob) -> float:
        flops = works[job.folder].flops_by_precision
        return START + sum(of / cpu_rate(job.rule, rates, count, name, alone(job)) for name, of in flops.items() if of)

    return seconds_together(jobs, seconds, count, alone)


def disk_bytes(plan: Plan) -> float:
    """What the models of a study take, in float32, and beside them the largest training's saved state while it runs; with
    their GGUF files where these are reported."""
    jobs = plan.jobs()
    models = sum(model_in(plan, job.folder).parameters for job in jobs if job.rule in WRITERS)
    trained = max((work.trained for _, work in plan.work_by_job()), default=0)
    exported = sum(model_in(plan, job.parents["model"]).parameters for job in jobs if job.rule == "export")
    files = exported * sum(GGUF_BYTES[type] for type in plan.study.stages.export.types)
    return REAL * (models + 3 * trained) + files


# Text


def report(study: Study, results: Path = Path("results"), measurements: Path | None = None) -> str:
    """All of it as text.

    Args:
        results: the folder of all studies' results, whose past runs say how fast this CPU is.
        measurements: file of what trainings reached on an accelerator; None: that in `results`, where there is one.

    Raises:
        ColpipeError: the file of measurements cannot be read, or is of a machine without an accelerator.
    """
    plan, host = Plan(study), platform.node()
    rates, measured = cpu_rates(results, host), find_measurements(results, measurements)
    found = stages(plan)
    parts = [_stage_table(found, rates, device_rates(measured)), _assumptions(rates, host, measured)]
    parts[1] += (
        f"\nA run of what is left takes about {hour(run_seconds(plan, rates, cores()) / 3600)} h here, jobs side by side on "
        f"{cores()} cores, and at its end about {number(disk_bytes(plan), 'B')} of disk."
    )
    if plan.study.stages.recover and (stop_at := plan.study.stages.recover.stop_at):
        parts[1] += f"\nRecoveries count their whole budgets; stages.recover.stop_at {stop_at:g} may end them earlier."
    if any(stage.flops.get("bfloat16") for stage in found) and lacks_bfloat16():
        parts[1] += f"\n{NO_BFLOAT16}"
    return "\n\n".join([*parts, *_sizes_texts(plan)])


def _stage_table(found: list[Stage], rates: dict[str, float], devices: dict[str, dict[str, float]]) -> str:
    columns = [
        "stage",
        "jobs",
        "done",
        "parameters",
        "memory",
        "tokens",
        "FLOPs",
        *(f"{name} h" for name in devices),
        "this CPU h",
    ]
    rows, whole = [], [0.0] * (len(devices) + 1)
    for stage in found:
        flops = sum(stage.flops.values())
        here = sum(
            count / cpu_rate(stage.rule, rates, cores(), precision) for precision, count in stage.flops.items() if count
        )
        hours = [seconds_on(device, stage.flops, devices) / 3600 for device in devices] + [here / 3600]
        whole = [before + more for before, more in zip(whole, hours, strict=True)]
        rows.append(
            [stage.rule, str(stage.jobs), str(stage.finished), number(stage.parameters), number(stage.memory, "B")]
            + [_bounded(value, stage.bound) for value in (stage.tokens, flops)]
            + [hour(value) for value in hours]
        )
    bound = least_sure(*(stage.bound for stage in found))
    total = [sum(stage.jobs for stage in found), sum(stage.finished for stage in found)]
    tokens, flops = sum(stage.tokens for stage in found), sum(sum(stage.flops.values()) for stage in found)
    largest = number(max(stage.memory for stage in found), "B")
    rows.append(
        ["all", *map(str, total), "", largest, _bounded(tokens, bound), _bounded(flops, bound), *map(hour, whole)]
    )
    return table(columns, rows)


def _assumptions(rates: dict[str, float], host: str, measured: Measured | None) -> str:
    peaks = "; ".join(
        f"{name} {', '.join(f'{peak / 1e12:g} TFLOP/s in {precision}' for precision, peak in by.items())}"
        for name, by in PEAKS.items()
    )
    if rates:
        cpu = f"this CPU ({host}): {number(rates[''])}FLOP/s by its own past runs, stage by stage where there are some"
    else:
        cpu = f"this CPU ({host}): no past runs under results/; {number(training_rate())}FLOP/s a core, as measured now"
        cpu += f", and {number(training_rate('bfloat16'))}FLOP/s in bfloat16" if has_bfloat16() else ""
    return (
        "≤ an upper bound: answers end earlier, rows that are not prepared yet are shorter; ? data or a model is not there "
        "yet, or its tokenizer is another than the chain's, and its size is assumed.\n"
        f"Hours of one device, one job after the other: {peaks}, of which {UTILISATION:.0%} are assumed to be reached "
        f"(PEAKS and UTILISATION in colpipe/cost/devices.py).\n{measured_text(measured)}{cpu}."
    )


def _sizes_texts(plan: Plan) -> list[str]:
    texts = []
    if found := estimate_sizes(plan):
        mark = f" {found.bound}" if found.bound != EXACT else ""
        ends = [
            f"each distilled from the ancestor or its bridge, as `stages.distill` has it ({number(found.distilled)})"
        ]
        ends += [f"each pre-trained, {found.scratch}"] if found.scratch else []
        texts.append(_sizes_text(found, plan, f"FLOPs{mark}", ends))
    if found := recorded_sizes(plan):
        ends = ["each distilled from the ancestor or its bridge"] if found.distilled is not None else []
        ends += [f"each pre-trained, {found.scratch}"] if found.pretrained is not None else []
        texts.append(_sizes_text(found, plan, "Device-seconds, as finished jobs recorded them,", ends))
    return texts


def _sizes_text(found: SizesCost, plan: Plan, unit: str, ends: list[str]) -> str:
    what = ["a chain once, from which sizes are assembled"]
    if found.size is not None:
        what.append(f"the same, and each recovered on {number(found.recovered)} tokens")
    rows = found.rows(len(plan.study.desnets))
    shown = [
        [f"{value:.2f}" if " / " in name else number(value) for name, value in row.items() if name != "sizes"]
        for row in rows
    ]
    lines = [[str(row["sizes"]), *cells] for row, cells in zip(rows, shown, strict=True)]
    return f"{unit} for N sizes, {found.means}: {'; '.join([*what, *ends])}.\n\n{table(list(rows[0]), lines)}"


def _bounded(value: float, bound: str) -> str:
    return f"{bound} {number(value)}".strip() if value else "–"


def number(value: float, unit: str = "") -> str:
    """Three digits and a unit: 1.23 G."""
    if not value:
        return "–"
    for size, name in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {name}{unit}"
    return f"{value:.3g} {unit}".strip()


def hour(value: float) -> str:
    return "–" if not value else f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Columns of text, the first to the left, others to the right."""
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [columns, *rows]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("estimate", __doc__)
    parser.add_argument("study", metavar="STUDY", help="a YAML file, or JSON text")
    parser.add_argument(
        "--measurements",
        type=Path,
        metavar="FILE",
        help=f"what trainings reached on an accelerator, by `make gpu-check` (results/{MEASUREMENTS}, if it is there)",
    )
    known = parser.parse_args(arguments)
    given = known.study
    is_text = given.lstrip().startswith("{")
    try:
        config = json.loads(given) if is_text else read_study(given)
        study = load_study(config, "study" if is_text else given)
        print(report(study, measurements=known.measurements))
        for line in () if is_text else remarks(study):  # Snakemake, which passes text, has said it
            print(f"\n{line}")
    except (ColpipeError, OSError, ValueError) as error:
        sys.exit(f"colpipe estimate: error: {error}")


if __name__ == "__main__":
    main()
