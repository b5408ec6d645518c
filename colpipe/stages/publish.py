"""Publish a model: a folder to use or upload as it is, with a model card. Its weights are linked, not copied.

Scores come after the model, whose folder is content that others depend on, so the card cannot lie there.
"""

import json
import os
import shutil
from pathlib import Path

from colpipe.config.folders import read_mapping
from colpipe.data.chat import published_template
from colpipe.data.encoding import begin_token
from colpipe.data.prompts import WITHOUT_INPUT
from colpipe.data.rows import read_rows
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.artifacts import content_files, read_manifest, write_json
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.reporting.card import Asked, Described, card
from colpipe.reporting.continuations import block, read_texts
from colpipe.reporting.exports import read_exports
from colpipe.reporting.kept import comparison, guesses

ANSWER = 128  # tokens at most, where nothing else is asked for
LOCAL = ("is_local", "local_files_only")  # what transformers notes of where a tokenizer was loaded from


def main(job: Job[Described]) -> None:
    known = job.settings
    folders = {**job.parents_of("made-of"), known.path: job.parents["model"]}
    fingerprints = {**job.manifest["parents"], f"made-of.{known.path}": job.manifest["parents"]["model"]}
    manifests = {path: (read_manifest(folder), fingerprints[f"made-of.{path}"]) for path, folder in folders.items()}
    of_paper = known.template == "paper"
    tokenizer = load_tokenizer(job.parents["model"])
    config = copy_model(job.parents["model"], job.staging, published_template(tokenizer, of_paper))
    own = (job.staging / "chat_template.jinja").exists() and not of_paper
    scores, intervals = (
        json.loads((job.parents["score"] / f"{name}.json").read_text()) for name in ("scores", "intervals")
    )
    tasks = job.parents_of("task")
    trained = {**tasks, **job.parents_of("train")}
    guessed = {name: list(guesses(known.tasks[name], folder, trained[name])) for name, folder in tasks.items()}
    kept: list[dict] = []
    if "compared" in job.parents:
        rows = {name: read_rows(folder, "test") for name, folder in tasks.items() if known.tasks[name].likelihood}
        kept = comparison(rows, job.parents["score"], job.parents["compared"])
    asked = Asked(known.instructed, WITHOUT_INPUT if of_paper else None, own, begin_token(tokenizer))
    exported = read_exports(job.parents["exported"]) if "exported" in job.parents else None
    text = card(known, config, manifests, scores, intervals, guessed, asked, job.seed, exported, kept, written(job))
    text.save(job.staging / "README.md")
    job.clear_files()  # of an earlier model; the card that Snakemake waits for is gone already
    job.publish_files()


def written(job: Job[Described]) -> str:
    """What the model writes beside what its chain descends from does, for the card."""
    origin = job.parents.get("origin-score")
    bridged = origin is not None and origin.parent.name == "bridges"
    own, others = read_texts(job.parents["score"]), read_texts(origin) if origin else []
    return block(own, others, "its ancestor's bridge" if bridged else "its ancestor") if own else ""


def copy_model(model: Path, folder: Path, template: str | None) -> dict:
    """A model's folder for others: settings for answering, its prompt as the chat template, everything else linked.

    Args:
        template: chat template, instead of the tokenizer's own; None: its own, if it has one.

    Returns:
        Its `config.json` mapping.
    """
    config, tokenizer = (json.loads((model / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
    config["use_cache"] = True  # training turns it off
    for key in LOCAL:
        tokenizer.pop(key, None)
    in_settings, file = tokenizer.pop("chat_template", None), model / "chat_template.jinja"
    template = template or (
        file.read_text() if file.exists() else in_settings if isinstance(in_settings, str) else None
    )
    if template:
        (folder / "chat_template.jinja").write_text(template)
    own = read_mapping(model / "generation_config.json")  # lists every end of a text
    special = {key: own.get(key, config.get(key)) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if special["pad_token_id"] is None:
        end = special["eos_token_id"]
        special["pad_token_id"] = end[0] if isinstance(end, list) else end
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer_config.json", tokenizer)
    write_json(folder / "generation_config.json", {**special, "do_sample": False, "max_new_tokens": ANSWER})
    for path in content_files(model):
        target = folder / path.name
        if not target.exists() and not path.name.startswith("chat_template"):
            try:
                os.link(path.resolve(), target)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, target)
    return config


if __name__ == "__main__":
    run_stage(
        "publish",
        __doc__,
        main,
        inputs={
            "model": "the model",
            "score": "its scores",
            "made-of*": "all that it descends from",
            "corpus*": "prepared corpora that it was scored on",
            "task*": "prepared instructions of each task",
            "train*": "prepared instructions to fine-tune on, of tasks that have others than their own",
            "compared": "scores of the model that it is compared with, where likelihoods were scored",
            "exported": "its GGUF files, where the study reports them",
            "origin-score": "scores of what its chain descends from, where models continue texts",
        },
        settings=Described,
        optional=("compared", "exported", "origin-score"),
    )
