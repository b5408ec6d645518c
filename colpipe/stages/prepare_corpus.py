"""Tokenise a data set's documents end to end, with end-of-text after each, into shards of every split.

Documents without text, and rows that the reader leaves out, are counted. The others are read, tokenised on all of the job's
threads and written as they come; none but those at work are in memory. A job that was cut off goes on behind the documents
that were counted last.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

import torch

from colpipe.config.needs import require_enough
from colpipe.config.parts import Dataset
from colpipe.data.encoding import begin_entry
from colpipe.data.file_counts import FileCounts
from colpipe.data.records import Record, read
from colpipe.data.shard_writing import require_documents, stage_shards, write_shards
from colpipe.data.tokenising import tokenise
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job


def main(job: Job[Dataset]) -> None:
    tokenizer = load_tokenizer(job.parents["tokenizer"])
    empty: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    files = FileCounts(job.settings, job.parents["dataset"])
    used = files.counted(with_text(read(job.settings, job.parents["dataset"]), empty, left_out))
    documents = ((record["split"], record["text"]) for record in used)
    found = write_shards(job, lambda done: tokenise(islice(documents, done, None), tokenizer, torch.get_num_threads()))
    require_documents(job, found, {split: f"{count:,} empty ones" for split, count in empty.items()})
    notes = {split: f"{count:,} empty documents were left out" for split, count in empty.items()}
    counts = {split: {**count, "empty": empty[split]} for split, count in stage_shards(job, found, notes).items()}
    for reason, count in left_out.items():
        job.say(f"{count:,} rows left out: {reason}")
    for line in files.lines():
        job.say(line)
    require_enough(job.output, counts, job.runtime)
    also = {"left_out": dict(sorted(left_out.items()))} if left_out else {}
    job.publish(counts=counts, **begin_entry(tokenizer), **also, **files.manifest())


def with_text(records: Iterable[Record], empty: Counter[str], left_out: Counter[str]) -> Iterator[Record]:
    """The documents among records; those without text are counted by split, those that the reader leaves out by reason."""
    for record in records:
        if "left_out" in record:
            left_out[record["left_out"]] += 1
        if "text" not in record:
            continue
        if not record["text"] or record["text"].isspace():
            empty[record["split"]] += 1
        else:
            yield record


if __name__ == "__main__":
    run_stage(
        "prepare_corpus",
        __doc__,
        main,
        inputs={"dataset": "staged data set with documents", "tokenizer": "tokenizer of the chain"},
        settings=Dataset,
    )
