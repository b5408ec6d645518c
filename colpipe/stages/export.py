"""Export a model as GGUF files, for llama.cpp and Ollama, with the chat template that it is published with.

Where llama.cpp is installed, it runs each once, and how fast is kept.
"""

import torch

from colpipe.config.parts import Prompts, Strict
from colpipe.data.chat import chat_template
from colpipe.export.files import write_gguf_files
from colpipe.export.llama_cpp import speed
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job


class Settings(Strict):
    name: str
    """Of the files, before their type."""
    types: list[str]
    instructed: bool
    """Whether it learned to answer."""
    prompts: Prompts


def main(job: Job[Settings]) -> None:
    settings = job.settings
    paths = {type: job.staging / f"{settings.name}-{type}.gguf" for type in settings.types}
    template = chat_template() if settings.instructed and settings.prompts == "paper" else None
    exported = write_gguf_files(job.parents["model"], paths, template)
    speeds, threads = {}, torch.get_num_threads()
    for each in exported:
        speeds[each.type], told = speed(each.path, each.vocabulary, each.positions, threads)
        job.say("; ".join((f"{each.path.name}: {each.bytes:,} bytes", told, *each.notes)))
    job.publish(
        bytes={each.type: each.bytes for each in exported},
        not_quantised={each.type: each.not_quantised for each in exported},
        tokens_per_second={type: found._asdict() for type, found in speeds.items() if found},
        threads=threads,
        notes=list(dict.fromkeys(note for each in exported for note in each.notes)),
    )


if __name__ == "__main__":
    run_stage("export", __doc__, main, inputs={"model": "the model"}, settings=Settings)
