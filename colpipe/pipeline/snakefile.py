"""What the Snakefile needs beside the plan (no torch here)."""

import atexit
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from colpipe.config.needs import shortages
from colpipe.config.paper import paper
from colpipe.config.parts import read_number
from colpipe.config.study import Study
from colpipe.config.trackers import Tracker, require_trackers
from colpipe.data.files import some
from colpipe.errors import ColpipeError, near
from colpipe.jobs import artifacts
from colpipe.jobs.launch import VISIBLE, present
from colpipe.jobs.processor import NO_BFLOAT16, lacks_bfloat16
from colpipe.jobs.start import SHARED
from colpipe.pipeline import exhibits
from colpipe.pipeline.output import label_of
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.reruns import Reruns, find_manifests
from colpipe.pipeline.resources import FIELDS
from colpipe.pipeline.rules import RULES
from colpipe.pipeline.time_left import seconds_by_work, shares_of_cores

# Shell commands of rules; `Plan.params` has their param. A stage that uses accelerators is launched on those of its job.
# With -P, a folder called colpipe in the working directory is not taken for this package.
RUN = "python -P -m colpipe.jobs.start {params.command} --log {log:q}"
LAUNCH = "python -P -m colpipe.jobs.launch {params.command} --log {log:q}"
SHARING = 3  # jobs from which on they share their start: it loads what any of them may want
# Linux's malloc gives large blocks back at every step of a training on a CPU and asks for them again at the next; keeping
# them made micro models 10 to 20 % faster, with the same bits.
MALLOC = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), "1000000000")
MOST_TOLD = 10  # results that are made again and whose reason is told


def site_of(workflow) -> dict[str, str]:
    """What a profile says of its cluster among `default-resources`, name → text."""
    resources = workflow.resource_settings.default_resources or {}
    texts = {name: str(getattr(resource, "raw", resource)) for name, resource in resources.items()}
    return {name: text.strip("'\"") for name, text in texts.items() if name in ("light_partition", "accelerator_gres")}


def asked_resources(workflow, device: str) -> Collection[str]:
    """Which resources of jobs anything asks for: all of them a scheduler, a profile's resources or `--resources`;
    accelerators the launcher, where there are any. What executor will run the jobs is not known yet: one that is not this
    machine is given a number of jobs.

    Args:
        device: the study's.
    """
    settings = workflow.resource_settings
    named = set(workflow.global_resources.keys()) - {"_cores", "_nodes"}
    if workflow.remote_exec or settings.nodes or settings.default_resources or named:
        return FIELDS
    return ["gpu"] if device != "cpu" and _has_accelerators() else []


def slow_here(study: Study, workflow) -> list[str]:
    """A line on a study in bfloat16 that is to run on this machine, whose CPU has no such arithmetic: all of it where there
    are no accelerators, and fits of DesNets, which are on the CPU, where there are."""
    if workflow.remote_exec or not lacks_bfloat16():
        return []
    parts = [study.stages, *study.chain.values(), *study.ancestors.values()]
    if study.runtime.device != "cpu" and _has_accelerators():
        parts = [study.stages.fit] if study.stages.fit and study.has_fitted() else []
    return [NO_BFLOAT16] if '"precision":"bfloat16"' in "".join(part.model_dump_json() for part in parts) else []


def _has_accelerators() -> bool:
    """Whether this machine has any, of whichever kind."""
    return any(map(present, VISIBLE))


def require_folders(*paths: str) -> None:
    """Refuse a file that stands where folders are to be made.

    Raises:
        ColpipeError: names it.
    """
    for path in paths:
        for each in (Path(path), *Path(path).parents):
            if each.exists() and not each.is_dir():
                raise ColpipeError(f"{each}: is a file, where a folder of results is to be; move it away")


def asked_by_name(plan: Plan, workflow) -> dict[str, list[str]]:
    """Targets that are models, by name: `90M`, or `desnets/90M` and `chain/90M` where that is a rule or both: target → cards
    of all its versions. Thousands may be there, and each would take its time: only those that are asked for."""
    imported = workflow.modifier.parent_modifier is not None
    words = set() if imported else _words() - {rule.name for rule in workflow.rules}
    found: dict[str, list[str]] = {}
    for kind, names in (("chain", plan.study.chain), ("desnets", plan.study.desnets)):  # a DesNet before a member
        for name in names:
            for target in {name, f"{kind}/{name}"} & words:
                found[target] = plan.cards(name, kind)
    return found


def refuse_unknown_targets(plan: Plan, workflow) -> None:
    """Have Snakemake refuse what is no target in a line that says what may be meant.

    When all rules are made, it asks of each word whether it is a rule. A workflow that imports this one has other names.
    """
    from snakemake.exceptions import WorkflowError

    if workflow.modifier.parent_modifier is not None or not workflow.is_main_process:
        return
    is_rule = workflow.is_rule

    def checked(name: str) -> bool:
        found, settings = is_rule(name), workflow.dag_settings
        if settings is None:  # rules are being made
            return found
        is_target = name in settings.targets  # and not a word of --forcerun, --until or --omit-from
        rules = [rule.name for rule in workflow.rules if not (is_target and rule.has_wildcards())]
        if name not in rules and (found or not _is_file(name, workflow.rules)):
            raise WorkflowError(no_target(plan, name, rules))
        return found

    workflow.is_rule = checked


def _is_file(name: str, rules: Iterable) -> bool:
    """Whether a word can be a file: one that is there, one that a rule makes, or a path, of which Snakemake itself knows."""
    path = "/" in name and not name.startswith(("chain/", "desnets/"))
    return path or os.path.exists(name) or any(rule.is_producer(name) for rule in rules)


def no_target(plan: Plan, name: str, targets: Iterable[str]) -> str:
    """A line on a word that is no target: the target or model that is near it; of a size, those that are nearest.

    Args:
        targets: rules that are targets.
    """
    chain, desnets = (
        {f"{kind}/{each}": plan.study.parameters(entry.shape) for each, entry in getattr(plan.study, kind).items()}
        for kind in ("chain", "desnets")
    )
    bare = {path.partition("/")[2]: size for path, size in (chain | desnets).items()}
    kind, _, word = name.rpartition("/")
    models, size = {"chain": chain, "desnets": desnets}.get(kind, bare), read_number(word)
    meant = near(name, [*targets, *bare, *chain, *desnets]) if size is None else ""
    if not meant:
        there = sorted(models, key=lambda each: abs(models[each] - size)) if size else list(models)
        meant = f"its models are {some(there)}"
    return f"{name}: is no target of this study; {meant} (targets: colpipe run STUDY --list-target-rules)"


def asked_exhibits(plan: Plan, workflow) -> list[str]:
    """Tables and figures of the paper that are targets: those that the study has, and those that are asked for, to be told
    what is lacking. A workflow that imports this one may use any of them."""
    imported = workflow.modifier.parent_modifier is not None
    return [name for name in paper() if imported or name in _words() or exhibits.has(plan, name)]


def _words() -> set[str]:
    """Of the command line. Snakemake itself knows its targets when all rules are made."""
    return set(sys.argv[1:])


def require_trackers_here(workflow, names: Sequence[Tracker]) -> None:
    """Refuse trackers that this Python lacks, where it runs the jobs; elsewhere each job refuses them as it starts.

    Raises:
        ColpipeError: names them, and the command that installs them.
    """
    elsewhere = workflow.remote_exec or workflow.resource_settings.nodes
    if workflow.is_main_process and not elsewhere and not workflow.deployment_settings.deployment_method:
        require_trackers(names)


def declare_inputs(plan: Plan, workflow) -> Callable[[str], Callable]:
    """What rules say under `input`, by the name of the rule: functions of wildcards that give the manifests of all parents.

    What has to be made again is decided by content (`reruns.py`). As the jobs are made, those whose results are not what
    the study asks for are forced, with a line that says why. To Snakemake, the manifests of all others are ancient, so
    that times and its own memory decide nothing.

    Raises:
        ColpipeError: a file that a manifest names is gone, or a manifest is damaged; a folder of results is a file.
    """
    require_folders(plan.results, plan.resources)
    from snakemake.exceptions import WorkflowError
    from snakemake.io import IOFile, ancient

    # The process of a single job decides nothing, and need not look over all results.
    finished, superseded = find_manifests(plan) if workflow.is_main_process else ({}, [])
    if workflow.is_main_process:
        finished |= {str(folder): artifacts.read_manifest(folder) for folder in superseded if artifacts.restore(folder)}
    rename, told, kept = workflow.modifier.modify_rulename, set[str](), list[Path]()

    def is_forced(rule: str, folder: str) -> bool:
        """Whether Snakemake was told to make it, with `--force` or `--forcerun`."""
        rules = {each.name for each in workflow.dag.forcerules}
        return rename(rule) in rules or f"{folder}/{RULES[rule].file}" in workflow.dag.forcefiles

    reruns = Reruns(plan, finished, is_forced)

    def decide(rule: str, folder: str) -> None:
        """Force a job if it has to run, and keep what it replaces valid until it has succeeded."""
        begin()
        file, dag = f"{folder}/{RULES[rule].file}", workflow.dag
        reruns.compare_code = "code" in map(str, workflow.rerun_triggers)
        if folder in finished and workflow.persistence._filter_incomplete_keys([file]):
            # Snakemake was killed after the job had ended: the manifest is written last, so the result is whole.
            workflow.persistence.cleanup_metadata(IOFile(file))
        needs = plan.needs.get(folder)
        if needs and not reruns.is_stale(folder):  # the data are there, perhaps from when the study needed less
            for line in shortages(folder, finished[folder]["counts"], needs):
                raise WorkflowError(line)
        if reruns.is_stale(folder) and Path(file).exists():
            dag.forcefiles.add(file)
            _tell(reruns.reasons, told)
            if folder in finished and begin() and artifacts.supersede(Path(folder)):
                kept.append(Path(folder))

    @cache
    def begin() -> bool:
        """Whether this Snakemake is to run jobs; called once, before it takes the lock."""
        leave_alone(workflow, {rename(rule) for rule in RULES})
        runs, locks = not (workflow.dryrun or workflow.touch), Path(workflow.persistence.path) / "locks"
        if runs and not (
            locks.is_dir() and any(locks.iterdir())
        ):  # no other runs: what is left is of one that was killed
            for folder in superseded:
                artifacts.forget_superseded(folder)
            shutil.rmtree(plan.streams, ignore_errors=True)
            atexit.register(shutil.rmtree, plan.streams, ignore_errors=True)
        return runs

    def forget() -> None:
        """What was not deleted after all is valid by its first name."""
        for folder in kept:
            artifacts.forget_superseded(folder)

    def of(rule: str) -> Callable:
        def inputs(wildcards) -> list[str]:
            folder = plan.folder(rule, wildcards)
            try:
                manifests = plan.manifests(rule, wildcards)
            except KeyError as error:
                raise WorkflowError(f"{folder}: the study has nothing called {error}") from None
            if not workflow.is_main_process:
                return [ancient(path) for _, path in manifests]
            decide(rule, folder)
            return [path if reruns.is_stale(parent) else ancient(path) for parent, path in manifests]

        return inputs

    if workflow.is_main_process:
        atexit.register(forget)
    return of


def leave_alone(workflow, rules: set[str]) -> None:
    """Have Snakemake's own triggers find nothing in these rules. A job that they start masks all that follows from it: what
    is forced there would not be looked at."""
    persistence = workflow.persistence
    for name in ("params_changed", "input_changed", "code_changed", "software_stack_changed"):
        asked = getattr(persistence, name)
        setattr(persistence, name, lambda job, asked=asked: () if job.rule.name in rules else asked(job))


def _tell(reasons: Mapping[str, str], told: set[str]) -> None:
    """Tell why results are made again: each once, the first few of them."""
    from snakemake.logging import logger

    for folder in [folder for folder in reasons if folder not in told]:
        told.add(folder)
        if len(told) <= MOST_TOLD:
            logger.info(f"{folder} is made again: {reasons[folder]}")
        elif len(told) == MOST_TOLD + 1:
            logger.info("More results are made again, for reasons like these.")


def connect_loggers(workflow, results: Path, plan: Plan | None = None) -> None:
    """Give the logger plugins of this run what Snakemake does not tell them: `--logger colpipe` its jobs, the progress
    bars of `--logger rich` the time left.

    Args:
        results: `results/<study>/`.
        plan: whose jobs' work says how long they take on this machine, as long as none of them has run.
    """
    names = {workflow.modifier.modify_rulename(name): name for name in RULES}

    def planned() -> list[tuple[str, str, bool]]:
        """(rule, label, whether it has to run) of every job that makes something."""
        dag, jobs = workflow.dag, list(workflow.dag.jobs)
        return [
            (job.rule.name, label_of(job.rule.name, job.wildcards_dict), dag.needrun(job)) for job in jobs if job.output
        ]

    def here(of_plan: Callable[[Plan], dict[str, float]]) -> dict[str, float]:
        """What a plan says of jobs on this machine's cores; nothing of others."""
        if plan is None or workflow.remote_exec or (plan.study.runtime.device != "cpu" and _has_accelerators()):
            return {}
        with contextlib.suppress(ColpipeError, OSError):  # of data that are being replaced
            return of_plan(Plan(plan.study, place=plan.place))  # which knows no sizes of before yet
        return {}

    guess, shares = partial(here, seconds_by_work), partial(here, shares_of_cores)

    for handler in workflow.logger_manager.get_log_handlers():
        if begin := getattr(handler, "begin_study", None):
            begin(results, planned, names, guess, shares)
        if progress := getattr(handler, "progress", None):
            from colpipe.pipeline.progress import TimeLeft  # needs rich, which comes with the logger

            progress.columns = (*progress.columns, TimeLeft(progress, results, guess, shares))


def run_stages_here(checkout: str) -> None:
    """Have jobs run with the Python that runs Snakemake, and find this checkout's package."""
    for variable, place in (("PATH", str(Path(sys.executable).parent)), ("PYTHONPATH", checkout)):
        others = os.environ.get(variable, "").split(os.pathsep)
        os.environ[variable] = os.pathsep.join([place, *(other for other in others if other and other != place)])
    for variable, value in MALLOC.items():
        os.environ.setdefault(variable, value)
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, which logs would be full of


def share_start(workflow) -> None:
    """Have the jobs of this run share the loading of their libraries (`colpipe/jobs/start.py`), where Snakemake itself runs
    several. With accelerators they do not: what a library asks of a driver when it is loaded, a fork may not use. On Linux
    only, which has sockets with abstract names, and processes as files.
    """
    rules = {workflow.modifier.modify_rulename(name) for name in RULES}
    jobs = sum(job.rule.name in rules for job in workflow.dag.needrun_jobs())
    os.environ.pop(SHARED, None)  # of a Snakemake whose job this one is
    here = sys.platform == "linux" and workflow.is_main_process and workflow.local_exec
    if here and jobs >= SHARING and not _has_accelerators():
        os.environ[SHARED] = str(os.getpid())
