"""One distillation, by as many processes as torchrun starts: arguments are objective, folder of the models, output."""

import os
import sys
from pathlib import Path

import torch

from colpipe.job import Job
from colpipe.settings import Distill, Runtime
from colpipe.training.distillation import distill
from colpipe.training.models import load_model
from tests.unit.training.test_distillation import END, PROMPTS, ROWS, SETTINGS, TEXT


def main(objective: str, models: Path, output: Path) -> None:
    rank = os.environ.get("RANK", "0")
    settings = Distill(objective=objective, **{**SETTINGS, "steps": 4, "evaluations": 1, "keep": "last"})
    job = Job("distill", output / rank, output / "work" / rank, settings, Runtime(device="cpu"), {}, 0)
    student, teacher = load_model(models / "student"), load_model(models / "teacher")
    more = {"end": END, "pad": END, "answer_score": None}
    student, _ = distill(job, student, teacher, settings, ROWS, PROMPTS, TEXT, ROWS[:6], **more)
    torch.save({"weights": student.state_dict(), "metrics": job.metrics()}, output / f"{rank}.pt")
    job.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
