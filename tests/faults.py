"""Faults at random places of random stages: what comes out equals what an undisturbed run makes, or a message says why not.

    python -m tests.faults HOME --count 200 --seed 0      HOME: a checkout with a finished study in my-study.yaml

Each fault is drawn from a number of its own, which is printed: `--only NUMBER` repeats it. Stages run in processes that are
forked from this one, which has loaded their libraries, so that a fault takes a second or two.
"""

import argparse
import contextlib
import json
import os
import random
import re
import resource
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.conftest import may_separate

STATELESS = ("fetch_dataset", "fetch_model", "train_tokenizer", "prepare_instructions", "leakage", "order", "assemble")
TRAININGS = ("pretrain", "sft", "bridge", "distill", "recover")
APART = {"run.json", "metrics.jsonl", ".fingerprint.json", ".source.json"}  # what equal runs may differ in
SAID = re.compile(r"error: .+")
BEST_DAMAGED = r"is damaged; delete \S+ and run again"
RUNTIME = {"device": "cpu", "save_minutes": 0, "progress_seconds": 0}
MEGABYTE = 2**20


class Stage(NamedTuple):
    name: str
    arguments: dict[str, list[str]]
    """flag → values, without those that say where the result goes"""


class Fault(Exception):
    """What a run did against its promise."""


# The stages of a finished study, and how one is run.


def stages_of(home: Path) -> list[Stage]:
    """Every job of the study but its report, from the commands that Snakemake would run; stages and ways that it lacks."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "2",
        "--forceall",
        "-n",
        "-p",
        "--configfile",
        "my-study.yaml",
    ]
    said = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    found = []
    for line in re.findall(r"python -P -m colpipe\.\S+ .*", said.stdout + said.stderr):
        words = shlex.split(line)[3:]
        module = words.pop(0)
        name = words.pop(0) if module.startswith("colpipe.jobs.") else module.rpartition(".")[2]
        arguments: dict[str, list[str]] = {}
        for word in words:
            if word.startswith("--"):
                flag = arguments.setdefault(word, [])
            else:
                flag.append(word)
        for flag in ("--output", "--work", "--log", "--devices"):
            arguments.pop(flag, None)
        arguments["--runtime"] = [json.dumps(RUNTIME)]
        if name in TRAININGS:  # long enough to be cut off at several steps
            settings = json.loads(arguments["--settings"][0])
            training = settings.get("training", settings)
            training |= {"steps": 12} if training.get("steps") else {"epochs": 6}
            arguments = with_settings(arguments, settings)
        if name not in ("report", "paper"):
            found.append(Stage(name, arguments))
    distilled = next(stage for stage in found if stage.name == "distill")
    for changes in (
        {"objective": "minillm", "rollout": {"size": 4, "batch_size": 2}, "evaluations": 2},
        {"objective": "seqkd", "rollout": {"batch_size": 2}},
        {"objective": "jsd", "evaluations": 2, "answer_rows": 2},
    ):
        settings = json.loads(distilled.arguments["--settings"][0])
        settings["training"] |= changes
        found.append(Stage("distill", with_settings(distilled.arguments, settings)))
    architecture = json.loads(distilled.arguments["--settings"][0])["architecture"]
    signal_settings = {"architecture": architecture, "top_k": 8, "max_length": 64}
    teacher = {flag: distilled.arguments[flag] for flag in ("--teacher", "--data")}
    found.append(Stage("teacher_signal", with_settings(teacher, signal_settings)))
    order_settings = {"select": "rank", "measuring": {"corpus": "stories", "tokens": 512, "max_length": 64}}
    corpus = next(stage for stage in found if stage.name == "recover").arguments["--corpus"]
    found.append(Stage("order", with_settings({"--model": teacher["--teacher"], "--corpus": corpus}, order_settings)))
    [stories], tokenizer = corpus, {"--tokenizer": distilled.arguments["--tokenizer"]}
    parts = {"--data": [f"one={stories}", f"other={stories}"], **tokenizer}
    found.append(Stage("mix_corpus", with_settings(parts, {"shares": {"one": 0.25, "other": 0.75}})))
    written = {"openings": "stories", "opening": 8, "max_new_tokens": 12, "tokens": 1000, "batch_size": 8}
    writer = {"--writer": ["results/tiny/sft/llama"], "--openings": corpus, **tokenizer}
    found.append(Stage("write_corpus", with_settings(writer, written)))
    return found


def with_settings(arguments: dict[str, list[str]], settings: dict) -> dict[str, list[str]]:
    return {**arguments, "--settings": [json.dumps(settings)], "--runtime": [json.dumps(RUNTIME)]}


def start(home: Path, stage: Stage, folder: Path, within=None) -> int:
    """Fork a run of a stage, its result and work in `folder`; the process's number. `within` is called in it first."""
    arguments = {**stage.arguments, "--output": [str(folder / "out")], "--work": [str(folder / "work")]}
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.chdir(home)
        log = os.open(folder.parent / f"{folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = [stage.name, *(word for flag, values in arguments.items() for word in (flag, *values))]
        if within:
            within()
        runpy.run_module(f"colpipe.stages.{stage.name}", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(process: int) -> int:
    """Exit status of a run, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(home: Path, stage: Stage, folder: Path, within=None) -> tuple[int, str]:
    """A run to its end: exit status, and what it printed."""
    log = folder.parent / f"{folder.name}.log"
    before = log.stat().st_size if log.exists() else 0
    status = ended(start(home, stage, folder, within))
    return status, log.read_bytes()[before:].decode()


def content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in (folder / "out").rglob("*") if path.is_file() and path.name not in APART)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# What is done to it. Each draws from `chance`, and gives what it did, as words; it raises Fault where a promise is broken.


class Trial(NamedTuple):
    home: Path
    stage: Stage
    folder: Path
    whole: dict[str, bytes]
    """the content of an undisturbed run's result"""
    seconds: float
    """that it took"""
    chance: random.Random


def go_on(trial: Trial, allowed: tuple[str, ...] = ()) -> str:
    """Run to the end. The result is the undisturbed one, or, where `allowed`, a message says what is wrong."""
    status, said = run(trial.home, trial.stage, trial.folder)
    if status == 0 and content(trial.folder) == trial.whole:
        return "equal"
    if messages := [text for text in allowed if re.search(text, said)]:
        return f"said: {messages[0]}"
    raise Fault(f"status {status}, " + ("content differs" if status == 0 else "no message") + f":\n{said[-3000:]}")


def cut_off(trial: Trial, signals=(signal.SIGKILL,)) -> str:
    """Start, and send a signal at some moment."""
    after, number = trial.chance.uniform(0, 1.1) * trial.seconds, trial.chance.choice(signals)
    process = start(trial.home, trial.stage, trial.folder)
    time.sleep(after)
    os.kill(process, number)
    status = ended(process)
    if status not in (0, 143, -number):
        raise Fault(f"status {status} after {number.name}")
    return f"{number.name} after {after:.2f} s"


def killed(trial: Trial) -> str:
    cuts = [cut_off(trial) for _ in range(trial.chance.randint(1, 3))]
    return f"{', '.join(cuts)}: {go_on(trial)}"


def told_to_stop(trial: Trial) -> str:
    return f"{cut_off(trial, (signal.SIGTERM, signal.SIGUSR1))}: {go_on(trial)}"


def damage(path: Path, chance: random.Random) -> str:
    """Flip a bit of a file, cut it short, or delete it."""
    size = path.stat().st_size
    way = chance.choice(["flip", "flip", "truncate", "delete"])
    if way == "delete" or not size:
        path.unlink()
        return f"{path.name} deleted"
    position = chance.randrange(size)
    if way == "truncate":
        os.truncate(path, position)
        return f"{path.name} cut at {position} of {size}"
    with open(path, "r+b") as file:
        file.seek(position)
        [byte] = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1 << chance.randrange(8)]))
    return f"{path.name} flipped at {position} of {size}"


def state_files(trial: Trial) -> list[Path]:
    """What the stage would go on from."""
    parts = "trainer*/checkpoint-*/*" if trial.stage.name in TRAININGS else "**/*"
    return sorted(path for path in trial.folder.glob(f"work/state-*/{parts}") if path.is_file())


def damaged_state(trial: Trial) -> str:
    """Killed when there is something to damage; a stage without in-step state is only killed."""
    if trial.stage.name in STATELESS:
        return killed(trial)
    process = start(trial.home, trial.stage, trial.folder)
    while not state_files(trial) and not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.001)
    time.sleep(trial.chance.uniform(0, 0.2) * trial.seconds)
    os.kill(process, signal.SIGKILL)
    ended(process)
    if not (files := state_files(trial)):
        return f"done before it was killed: {go_on(trial)}"
    done = damage(trial.chance.choice(files), trial.chance)
    return f"{done}: {go_on(trial, (BEST_DAMAGED,))}"


def own_inputs(trial: Trial) -> tuple[Trial, list[Path]]:
    """The same with copies of its input folders, and these."""
    arguments, folders = dict(trial.stage.arguments), []
    for flag, values in arguments.items():
        if flag in ("--settings", "--runtime", "--seed"):
            continue
        arguments[flag] = []
        for value in values:
            name, equals, place = value.rpartition("=")
            copy = trial.folder.parent / f"{trial.folder.name}-inputs" / str(len(folders))
            shutil.copytree(trial.home / place, copy)
            folders.append(copy)
            arguments[flag].append(f"{name}{equals}{copy}")
    return trial._replace(stage=Stage(trial.stage.name, arguments)), folders


def damaged_input(trial: Trial) -> str:
    trial, folders = own_inputs(trial)
    files = sorted(
        path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name not in APART
    )
    if not files:
        return killed(trial)
    done = damage(trial.chance.choice(files), trial.chance)
    return f"input {done}: {go_on(trial, ('replaced by hand', SAID.pattern))}"


def vanished_input(trial: Trial) -> str:
    trial, folders = own_inputs(trial)
    if not folders:
        return killed(trial)
    after, folder = trial.chance.uniform(0, 1) * trial.seconds, trial.chance.choice(folders)
    process = start(trial.home, trial.stage, trial.folder)
    time.sleep(after)
    folder.rename(folder.with_name("gone"))
    status = ended(process)
    said = (trial.folder.parent / f"{trial.folder.name}.log").read_text()
    if status and not SAID.search(said):
        raise Fault(f"status {status} without a message:\n{said[-3000:]}")
    folder.with_name("gone").rename(folder)
    return f"an input vanished after {after:.2f} s, status {status}: {go_on(trial)}"


@contextlib.contextmanager
def mounted(folder: Path, size: int):
    """A file system in memory of some bytes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "colpipe-faults", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def full_disk(trial: Trial) -> str:
    needed = sum(map(len, trial.whole.values()))
    size = trial.chance.randrange(4096, 4 * needed + 65536)
    with mounted(trial.folder, size):
        status, said = run(trial.home, trial.stage, trial.folder)
        if status and "no space left" not in said:
            raise Fault(f"status {status} on {size} bytes:\n{said[-3000:]}")
        subprocess.run(["mount", "-o", f"remount,size={64 * MEGABYTE}", trial.folder], check=True)
        return f"{size} bytes of disk, status {status}: {go_on(trial)}"


def read_only(trial: Trial) -> str:
    with mounted(trial.folder, 64 * MEGABYTE):
        subprocess.run(["mount", "-o", "remount,ro", trial.folder], check=True)
        status, said = run(trial.home, trial.stage, trial.folder)
        if not status or not SAID.search(said):
            raise Fault(f"status {status} on a read-only folder:\n{said[-3000:]}")
        subprocess.run(["mount", "-o", "remount,rw", trial.folder], check=True)
        return f"read-only: {go_on(trial)}"


def two_at_once(trial: Trial) -> str:
    first = start(trial.home, trial.stage, trial.folder)
    time.sleep(trial.chance.uniform(0, 0.8) * trial.seconds)
    status, said = run(trial.home, trial.stage, trial.folder)
    if status and "another process is working there" not in said:
        raise Fault(f"the second: status {status}:\n{said[-3000:]}")
    if other := ended(first):
        log = (trial.folder.parent / f"{trial.folder.name}.log").read_text()
        if "another process is working there" not in log or status:
            raise Fault(f"the first: status {other}, the second: {status}:\n{log[-3000:]}")
    return f"a second one, status {status}: {go_on(trial)}"


def jumping_clock(trial: Trial) -> str:
    """The clock of the day jumps by up to a year, back and forth."""
    jumps, true_time = random.Random(trial.chance.random()), time.time

    def jump():
        time.time = lambda: true_time() + jumps.uniform(-3e7, 3e7)

    status, said = run(trial.home, trial.stage, trial.folder, jump)
    if status:
        raise Fault(f"status {status}:\n{said[-3000:]}")
    return f"the clock jumps: {go_on(trial)}"


def little_memory(trial: Trial) -> str:
    more = trial.chance.randrange(1, 30) * MEGABYTE

    after = trial.chance.uniform(0, 0.7) * trial.seconds

    def limit():
        """Once the stage is at work, not while libraries are loaded."""
        while not (trial.folder / "work").exists():
            time.sleep(0.001)
        time.sleep(after)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

    status, said = run(trial.home, trial.stage, trial.folder, threading.Thread(target=limit, daemon=True).start)
    if status > 0 and "out of memory" not in said:
        raise Fault(f"status {status} with {more / MEGABYTE:.0f} MB:\n{said[-3000:]}")
    return f"{more / MEGABYTE:.0f} MB more after {after:.2f} s, status {status}: {go_on(trial)}"


KINDS = {killed: 5, told_to_stop: 2, damaged_state: 5, damaged_input: 4, vanished_input: 2, two_at_once: 1}
KINDS |= {jumping_clock: 1, little_memory: 2}
if may_separate("mount"):  # who may mount as well
    KINDS |= {full_disk: 3, read_only: 1}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of one fault")
    arguments = parser.parse_args()
    home, scratch = arguments.home.resolve(), Path("faults").resolve()
    sys.path.insert(0, str(home))
    stages = stages_of(home)
    load_libraries()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    undisturbed: dict[int, tuple[dict, float]] = {}
    numbers = [arguments.only] if arguments.only is not None else range(arguments.count)
    survived, kinds, bad = 0, Counter(), []
    for number in numbers:
        chance = random.Random(arguments.seed * 1_000_003 + number)
        # Each stage in turn, so that none is left out; what happens to it is chance.
        index, kind = number % len(stages), chance.choices([*KINDS], [*KINDS.values()])[0]
        if index not in undisturbed:
            undisturbed[index] = run_undisturbed(home, stages[index], scratch / f"whole-{index}")
        folder = scratch / str(number)
        folder.mkdir()
        trial = Trial(home, stages[index], folder, *undisturbed[index], chance)
        line = f"fault {number} (seed {arguments.seed}): {stages[index].name}, {kind.__name__}: "
        try:
            line += kind(trial)
            survived += 1
            kinds[kind.__name__] += 1
            shutil.rmtree(folder)
        except Fault as fault:
            bad.append(number)
            line += f"NOT SURVIVED: {fault}"
        print(line, flush=True)
    shutil.rmtree(scratch)
    print(f"{survived} of {len(numbers)} faults survived over {len(stages)} stages: {dict(kinds)}")
    if bad:
        sys.exit(f"not survived: {bad}")


def run_undisturbed(home: Path, stage: Stage, folder: Path) -> tuple[dict[str, bytes], float]:
    folder.mkdir()
    begun = time.monotonic()
    status, said = run(home, stage, folder)
    if status:
        raise SystemExit(f"{stage.name}, undisturbed: status {status}:\n{said}")
    return content(folder), time.monotonic() - begun


def load_libraries() -> None:
    """All that stages import, before any thread is started; nothing of colpipe's own, which each fork reads for itself."""
    import lm_eval.api.instance  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pandas  # noqa: F401
    import rouge_score.rouge_scorer  # noqa: F401
    import torch
    import transformers
    import trl  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, LlamaForCausalLM, Trainer  # noqa: F401

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()


if __name__ == "__main__":
    main()
