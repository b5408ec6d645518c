"""What a job needs of a machine, from the sizes of its models: accelerators, memory, time (nothing is loaded).

Rules of thumb, on the safe side; a profile or `--set-resources` overrides each. They change no result.

    memory       16 bytes a trained parameter (float32 weights, gradients, AdamW's two momenta), 4 a frozen one, and
                 activations: 34 values a token, layer and channel (Korthikanti et al. 2022), 2 where they are computed
                 again. Layers times channels are about 0.04 parameters^(2/3): 0.037 in GPT-2, 0.036 in Llama-2-7B
    operations   6 a trained parameter and token, 2 a frozen one (Kaplan et al. 2020), at the rate that float32 training
                 reaches, not what the device's sheet says
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from colpipe.plan import Plan
from colpipe.settings import Runtime
from colpipe.stage_settings import Training

TRAINED, FROZEN = 16, 4  # bytes a parameter
BASE = 3_000_000_000  # bytes: Python, torch and its libraries
RATES = {"cpu": 4e10, "cuda": 2e13, "npu": 2e13, "auto": 2e13}  # operations a second: of all threads, or of one device
LEAST, ENOUGH = 30, 720  # minutes: the shortest limit that is asked for; what is longer gets more devices
MOST = 8  # devices of a job, those of one node
UNKNOWN = 8_000_000_000  # parameters of an ancestor that is not fetched yet
UNSEEN = 100_000_000  # tokens of data that are not prepared yet
DATA = ("corpus", "instructions", "answers", "data", "task", "train")  # inputs that are read from end to end
PREPARING = {"train_tokenizer", "prepare_corpus", "prepare_instructions"}
LIGHT = {*PREPARING, "assemble", "leakage", "report", "exhibit", "publish"}


@dataclass(frozen=True)
class Needs:
    """Of one job."""

    accelerators: int
    memory_mb: int
    """main memory"""
    minutes: int


def needs_of_jobs(plan: Plan) -> Callable:
    """What the Snakefile puts under `resources`, by the name of the rule."""

    last: dict[tuple[str, str], Needs] = {}

    def of_job(rule: str, wildcards: object) -> Needs:
        """Worked out once where the resources of a job are asked for one after the other."""
        key = (rule, repr(wildcards))
        if key not in last:
            last.clear()
            last[key] = needs(plan, rule, wildcards)
        return last[key]

    def of(rule: str) -> dict[str, Callable]:
        fields = {"gpu": "accelerators", "mem_mb": "memory_mb", "runtime": "minutes"}
        return {
            resource: lambda wildcards, field=field: getattr(of_job(rule, wildcards), field)
            for resource, field in fields.items()
        }

    return of


def needs(plan: Plan, rule: str, wildcards: object) -> Needs:
    """Those of a job of a rule.

    Beside an accelerator, main memory holds the weights of its models twice: as they are read, and as they are saved.
    """
    trained, frozen = _models(plan, rule, wildcards)
    every = trained + frozen
    if rule in LIGHT:
        return Needs(0, _megabytes(BASE + 2 * FROZEN * every), 2 * LEAST)
    runtime, training = plan.study.runtime, _training(plan, rule, wildcards)
    minutes = (6 * trained + 2 * frozen) * _tokens(plan, rule, wildcards, training) / RATES[runtime.device] / 60
    if runtime.device == "cpu":
        held = TRAINED * trained + FROZEN * frozen + _activations(trained or frozen, training, runtime)
        return Needs(0, _megabytes(BASE + held), _limit(minutes))
    count = 1
    while training and minutes / count > ENOUGH and count < MOST and training.batch_size % (2 * count) == 0:
        count *= 2
    return Needs(count, _megabytes(BASE + 2 * FROZEN * every), _limit(minutes / count))


def _megabytes(size: float) -> int:
    return ceil(size / 1e6)


def _limit(minutes: float) -> int:
    """Three times what is thought, because a job that has not ended by then is started again."""
    return LEAST + ceil(3 * minutes)


def _activations(parameters: int, training: Training | None, runtime: Runtime) -> float:
    """Bytes of the activations of one micro-batch."""
    rows, length = (training.batch_size, training.max_length) if training else (32, 512)
    values = 2 if runtime.gradient_checkpointing else 34
    return 4 * values * min(runtime.micro_batch or rows, rows) * length * 0.04 * parameters ** (2 / 3)


def _tokens(plan: Plan, rule: str, wildcards: object, training: Training | None) -> float:
    """Tokens that a job reads, at most."""
    if training and training.steps:
        return training.steps * training.batch_size * training.max_length
    data = [folder for name, folder in plan.parents(rule, wildcards) if name.partition(".")[0] in DATA]
    seen = sum(_prepared(Path(folder)) for folder in data) or UNSEEN
    if tokens := getattr(training, "tokens", None):
        seen = min(seen, tokens)
    return (training.epochs if training else 1) * seen


def _prepared(folder: Path) -> int:
    """Tokens of prepared data, from the sizes of its training files: ids of two bytes, or text of four bytes a token."""
    ids = sum(path.stat().st_size // 2 for path in folder.glob("train-*[0-9].npy"))
    return ids + sum(path.stat().st_size // 4 for path in folder.glob("train.jsonl"))


def _models(plan: Plan, rule: str, wildcards: object) -> tuple[int, int]:
    """Parameters of the model that learns, and of those that are only read together."""
    study, folders = plan.study, dict(plan.parents(rule, wildcards))
    roles = ("teacher", "ordered", "smaller", "larger", "source", "model", "student")
    found = {role: _parameters(plan, folders[role]) for role in roles if role in folders}
    if rule == "pretrain":
        return study.parameters({**study.models, **study.chain}[wildcards.start].shape), 0
    if rule in ("sft", "bridge", "recover", "evaluate"):
        return found["model"], 0
    if rule == "stack":
        return found["model"], found["teacher"]
    if rule in ("distill", "distill_desnet"):
        shape = study.chain[wildcards.member].shape if rule == "distill" else study.desnets[wildcards.desnet].shape
        return study.parameters(shape), 0 if "signal" in folders else found["teacher"]
    return 0, sum(found.values())


def _parameters(plan: Plan, folder: str) -> int:
    """Parameters of the model in a folder that may not be there yet."""
    study, parts = plan.study, Path(folder).parts[2:]
    match parts:
        case ("desnets", _, name, *_):
            return study.parameters(study.desnets[name].shape)
        case ("bridges" | "ordered", ancestor):
            name = study.ancestors[ancestor].bridge or study.ancestors[ancestor].model
        case (*_, name):  # a member, a model that was pre-trained or fine-tuned, or a fetched one
            name = next((model for model, path in plan.fetched.items() if path == folder), name)
    shape = {**study.models, **study.chain}[name].shape
    return study.parameters(shape) if shape else _published(Path(plan.fetched[name]))


def _published(folder: Path) -> int:
    """Parameters of a fetched model, from the sizes of its files."""
    try:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        config = json.loads((folder / "config.json").read_text())
    except OSError:
        return UNKNOWN
    half = (config.get("dtype") or config.get("torch_dtype")) in ("bfloat16", "float16")
    return sum(entry["bytes"] for name, entry in files.items() if name.endswith(".safetensors")) // (2 if half else 4)


def _training(plan: Plan, rule: str, wildcards: object) -> Training | None:
    stages = plan.study.stages
    match rule:
        case "distill":
            return plan.study.distill_settings(wildcards.ancestor, wildcards.member)
        case "distill_desnet":
            return plan.study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
        case "recover":
            return plan.recover_settings(wildcards)
        case "stack":
            return plan.study.stacks[wildcards.stack].fine_tune
        case "evaluate":
            tuned = [task.fine_tune for task in plan.study.tasks.values() if task.fine_tune]
            return max(tuned, key=lambda each: each.batch_size * each.max_length, default=None)
    return getattr(stages, rule, None) if rule in ("sft", "bridge", "pretrain") else None
