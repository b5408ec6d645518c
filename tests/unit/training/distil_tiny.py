"""Small distillations in processes of their own: to be killed, or several together.

They are forked from a process that has loaded what they import, which takes as long as ten of them.
"""

import itertools
import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from colpipe.config.parts import Runtime
from colpipe.config.stages import Distill
from colpipe.hf.models import load_model
from colpipe.jobs.device import join_processes
from colpipe.training.distillation import distill
from tests.conftest import CHECKOUT, open_job
from tests.unit.training.test_distillation import MATERIAL, SETTINGS, submodels_of

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
# Below those that the system gives to others, and another twenty in each process of pytest.
PORTS = itertools.cycle(20_000 + 20 * (os.getpid() % 500) + number for number in range(20))


def start(
    objective: str, models: Path, output: Path, changes: dict, processes: int = 1, shard: bool = False
) -> list[ForkServerProcess]:
    """Processes that distil together; what they say goes to files beside the output.

    Args:
        models: folder of `student` and `teacher`.
        changes: of the settings.
        shard: whether the model is shared out among them.
    """
    started, port = [], next(PORTS)
    for rank in range(processes):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        together = {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if processes > 1 else {}
        words = (objective, models, output, changes, shard)
        started.append(
            CONTEXT.Process(target=_run, args=(words, {name: str(value) for name, value in together.items()}))
        )
        started[-1].start()
    return started


def finish(started: list[ForkServerProcess], output: Path) -> None:
    """Wait for processes that have to succeed."""
    for process in started:
        process.join()
    said = "\n".join(path.read_text() for path in sorted(output.parent.glob(f"{output.name}-said-*")))
    assert not any(process.exitcode for process in started), said


def _run(words: tuple, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(CHECKOUT)
    output, shard = words[2], words[4]
    said = os.open(f"{output}-said-{os.environ.get('RANK', '0')}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(said, number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    torch.set_num_threads(1)
    if shard:
        import tests.sharding_on_cpu.sitecustomize  # noqa: F401
    _distil(*words)


def _distil(objective: str, models: Path, output: Path, changes: dict, shard: bool) -> None:
    settings = Distill(objective=objective.removesuffix("+elastic"), **{**SETTINGS, **changes})
    job = open_job(
        "distill", output, output / "work", settings, Runtime(device="cpu", save_minutes=0, shard=shard), {}, 0
    )
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        join_processes("cpu")
    student, teacher = load_model(models / "student"), load_model(models / "teacher")
    try:
        student, _ = distill(job, student, teacher, settings, MATERIAL, submodels=submodels_of(student, objective))
    finally:  # all but the main process leave when the training is done
        process = os.environ.get("RANK", "0")
        if not shard:  # or the others have their shares alone
            torch.save(student.state_dict(), output.with_name(f"{output.name}-process-{process}.pt"))
    torch.save({"weights": student.state_dict(), "metrics": job.metrics()}, output / "student.pt")
    job.close()
