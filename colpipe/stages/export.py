"""Export a model as GGUF files, for llama.cpp and Ollama, with the chat template that it is published with.

Where llama.cpp is installed, it runs each once, and how fast is kept among the metrics.
"""

import torch

from colpipe.config.parts import Strict, Template
from colpipe.data.chat import published_template
from colpipe.errors import ColpipeError
from colpipe.export.files import Exported, write_gguf_files
from colpipe.export.llama_cpp import speed
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job


class Settings(Strict):
    name: str
    """Of the files, before their type."""
    types: list[str]
    template: Template
    optional: bool = False
    """Whether a model that llama.cpp does not take is told of, with no file, where otherwise the job fails."""


def main(job: Job[Settings]) -> None:
    settings, refused = job.settings, ""
    paths = {type: job.staging / f"{settings.name}-{type}.gguf" for type in settings.types}
    exported: list[Exported] = []
    try:
        tokenizer = load_tokenizer(job.parents["model"])
        template = published_template(tokenizer, settings.template == "paper")
        exported = write_gguf_files(job.parents["model"], paths, template)
    except ColpipeError as error:
        if not settings.optional:
            raise
        for path in job.staging.iterdir():  # types that came before
            path.unlink()
        refused = str(error)
        (job.staging / "no-files.txt").write_text(f"{refused}\n")
        job.say(f"no GGUF files: {refused}")
    for number, each in enumerate(exported):
        found, told = speed(each.path, each.vocabulary, each.positions, torch.get_num_threads())
        job.say("; ".join((f"{each.path.name}: {each.bytes:,} bytes", told, *each.notes)))
        if found:
            job.measure(split="speed", step=number, type=each.type, **found._asdict())
    job.publish(
        bytes={each.type: each.bytes for each in exported},
        not_quantised={each.type: each.not_quantised for each in exported},
        notes=list(dict.fromkeys(note for each in exported for note in each.notes)),
        refused=refused,
    )


if __name__ == "__main__":
    run_stage("export", __doc__, main, inputs={"model": "the model"}, settings=Settings)
