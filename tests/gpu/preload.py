"""What all checks import, loaded once: their processes are forked from one that has it."""

import os

from tests.gpu import bare

if names := os.environ.get(bare.HIDDEN):
    bare.hide(names.split(","))

import torch
import transformers
from transformers import AutoModelForCausalLM, Trainer  # before what stands in for pydantic, which they would look for

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
try:
    with bare.filled_in():
        from tests.gpu import generation, memory, objectives, resume, speed, synchronisations, training
except Exception as error:  # the process that all checks are forked from ends with any other; a check then says which
    raise ImportError(f"{type(error).__name__}: {error}") from error

LOADED = (
    torch,
    Trainer,
    AutoModelForCausalLM,
    generation,
    memory,
    objectives,
    resume,
    speed,
    synchronisations,
    training,
)
