"""One distillation in processes of its own: arguments are objective, folder of the models, output, changed settings (JSON).

To be killed, or started several times over by torchrun.
"""

import json
import os
import sys
from pathlib import Path

import torch

from colpipe.config.parts import Runtime
from colpipe.config.stages import Distill
from colpipe.hf.models import load_model
from colpipe.jobs.device import join_processes
from colpipe.training.distillation import distill
from tests.conftest import open_job
from tests.unit.training.test_distillation import MATERIAL, SETTINGS, submodels_of


def main(objective: str, models: Path, output: Path, changes: dict) -> None:
    settings = Distill(objective=objective.removesuffix("+elastic"), **{**SETTINGS, **changes})
    runtime = Runtime(device="cpu", save_minutes=0, shard="sharding_on_cpu" in os.environ.get("PYTHONPATH", ""))
    job = open_job("distill", output, output / "work", settings, runtime, {}, 0)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        join_processes("cpu")
    student, teacher = load_model(models / "student"), load_model(models / "teacher")
    try:
        student, _ = distill(job, student, teacher, settings, MATERIAL, submodels=submodels_of(student, objective))
    finally:  # all but the main process leave when the training is done
        process = os.environ.get("RANK", "0")
        if not runtime.shard:  # or the others have their shares alone
            torch.save(student.state_dict(), output.with_name(f"{output.name}-process-{process}.pt"))
    torch.save({"weights": student.state_dict(), "metrics": job.metrics()}, output / "student.pt")
    job.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]))
