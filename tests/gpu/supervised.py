"""Fine-tuning with trl, of a small model on a few rows."""

from pathlib import Path

import torch

from colpipe.config.stages import Sft
from colpipe.training.supervised import fine_tune
from tests.gpu.tiny import SMALL, TRAINING, model, open_job
from tests.gpu.words import tokenizer


def fine_tuned(folder: Path, device: torch.device) -> list[float]:
    """Losses of its steps."""
    words = tokenizer()
    rows = [{"prompt": f"w{n} w{n + 1} w{n + 2}", "completion": f" w{n + 3} w{n + 4}"} for n in range(64)]
    settings = Sft(**{**TRAINING, "evaluations": 0})
    with open_job(folder, "sft", settings, device) as job:
        fine_tune(job, model(SMALL, 1), words, rows, settings)
        return [record["loss"] for record in job.metrics() if record.get("split") == "train"]
