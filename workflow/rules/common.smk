# What every rule uses: the validated study and its plan. What a job reads, and with which settings: the rule table,
# colpipe/pipeline/rules.py.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import validate

# Not `workflow.basedir`: where colpipe is a module of another workflow, that is the other's. In an installed package, the
# workflow lies in colpipe/checkout/.
ROOT = Path(workflow.current_basedir).parents[1]
CHECKOUT = str(ROOT if (ROOT / "colpipe").is_dir() else ROOT.parents[1])
sys.path.insert(0, CHECKOUT)

import colpipe

if str(Path(colpipe.__file__).parents[1]) != CHECKOUT:
    raise WorkflowError(
        f"colpipe was imported from {Path(colpipe.__file__).parents[1]}, and this Snakefile is that of {CHECKOUT}: "
        "a workflow can have one of them; run the other in a Snakemake of its own"
    )

from colpipe.config.loading import check_text, load_study, remarks
from colpipe.config.paper import paper
from colpipe.errors import ColpipeError
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.resources import resources_of_jobs
from colpipe.pipeline.schedule import threads_for
from colpipe.pipeline.snakefile import (
    LAUNCH,
    RUN,
    asked_by_name,
    asked_exhibits,
    asked_resources,
    connect_loggers,
    declare_inputs,
    refuse_unknown_targets,
    require_trackers_here,
    run_stages_here,
    share_start,
    site_of,
    slow_here,
)

run_stages_here(CHECKOUT)
try:
    for path in workflow.configfiles:
        check_text(path)
    STUDY = load_study(config, str((workflow.configfiles or ["study"])[-1]))
    PLAN = Plan(STUDY, workflow.remote_exec, place=lambda folder: str(workflow.modifier.modify_path(folder)))
    require_trackers_here(workflow, STUDY.runtime.report_to)
    inputs_of = declare_inputs(PLAN, workflow)
except ColpipeError as error:
    raise WorkflowError(str(error)) from None
if workflow.is_main_process:
    for line in (*remarks(STUDY), *slow_here(STUDY, workflow)):
        logger.info(line)
connect_loggers(workflow, Path(PLAN.results), PLAN)
validate(STUDY.model_dump(mode="json"), "../schemas/study.schema.json", set_default=False)

# Threads of a training job on this machine. Two jobs on half of the cores do more than one on all of them, micro models and
# real ones (SmolLM2 of 20 layers in bfloat16, two cores: 128 tokens a second each against 208). What the chain waits for goes
# first (priority), and scoring fills the other half. Where there is nothing to fill it with, up to the first member of an only
# chain, a job has all (`threads_for`). A profile may say otherwise: --set-threads distill=8.
# A scheduler's nodes: eight for each job, --max-threads for fewer; where the job runs, what it was given.
CORES = workflow.resource_settings.cores or 8
HALF = CORES if workflow.remote_exec or not workflow.resource_settings.cores else max(1, CORES // 2)
# For `--sdm conda`; without it, jobs run with the packages of the Python that runs Snakemake.
ENVIRONMENT = {"cuda": "../../envs/gpu.yaml", "npu": "../../envs/npu.yaml"}.get(
    STUDY.runtime.device, "../../envs/cpu.yaml"
)


# Accelerators (`gpu`, of whichever kind), memory and minutes of each rule's jobs. A profile or --set-resources overrides them.
resources_of = resources_of_jobs(PLAN, site_of(workflow), asked_resources(workflow, STUDY.runtime.device))


pathvars:
    results=f"results/{STUDY.study}",
    logs=f"results/{STUDY.study}/logs",


wildcard_constraints:
    ancestor=r"[^/]+",
    teacher=r"[^/]+",
    member=r"[^/]+",
    desnet=r"[^/]+",
    init=r"[^/]+",
    stack=r"[^/]+",
    start=r"[^/]+",
    staged=r"[^/]+",
    budget=r"[1-9][0-9]*[kMB]?",
    model=r"(bridges|chain|desnets|sft)/.+",
