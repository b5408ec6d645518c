"""Tokenise a data set's documents end to end, with end-of-text after each, into shards of every split.

Documents without text are left out and counted. The others are read, tokenised on all of the job's threads and written as
they come; none but those at work are in memory. The counts are kept when a shard is full and by the clock; a job that was
cut off goes on behind the documents that they count.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch

from colpipe.config.needs import require_enough
from colpipe.config.parts import Dataset
from colpipe.data.file_counts import FileCounts
from colpipe.data.records import Record, read
from colpipe.data.shards import NOTHING, SIZE, append, shard_checksums, shard_count, shard_path
from colpipe.data.tokenising import Document, tokenise
from colpipe.errors import ColpipeError
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.jobs.state import read_record, write_record

SPLITS = ("train", "validation", "test")


def main(job: Job[Dataset]) -> None:
    tokenizer = load_tokenizer(job.parents["tokenizer"])
    empty: Counter[str] = Counter()
    files = FileCounts(job.settings, job.parents["dataset"])
    used = files.counted(with_text(read(job.settings, job.parents["dataset"]), empty))
    found = write_shards(job, ((record["split"], record["text"]) for record in used), tokenizer)
    counts = {}
    for split in SPLITS:
        count = found[split]
        if not count["documents"]:
            besides = f" (but {empty[split]:,} empty ones)" if empty[split] else ""
            raise ColpipeError(
                f"{job.output}: the {split} split has no documents{besides}; the data set needs more of them"
            )
        counts[split] = {name: count[name] for name in ("documents", "tokens", "bytes", "special")} | {
            "shards": shard_count(count),
            "empty": empty[split],
        }
        for number in range(shard_count(count)):
            path = shard_path(job.state, split, number)
            for each in (path, path.with_suffix(".ends.npy")):
                share(each, job.staging / each.name)
        job.say(
            f"{split}: {count['documents']:,} documents, {count['tokens']:,} tokens, "
            f"{count['bytes'] / count['tokens']:.2f} bytes a token"
            + (f"; {empty[split]:,} empty documents were left out" if empty[split] else "")
        )
        if count["special"]:
            job.say(
                f"{split}: {count['special']:,} times the text of a special token became that token, which this tokenizer "
                "cannot keep as text: a document may seem to end there"
            )
    for line in files.lines():
        job.say(line)
    require_enough(job.output, counts, job.runtime)
    job.publish(counts=counts, **files.manifest())


def with_text(records: Iterable[Record], empty: Counter[str]) -> Iterator[Record]:
    """The documents among records; those without text are counted by split, and left out."""
    for record in records:
        if "text" not in record:
            continue
        if not record["text"] or record["text"].isspace():
            empty[record["split"]] += 1
        else:
            yield record


def write_shards(job: Job[Dataset], documents: Iterable[Document], tokenizer) -> dict[str, dict[str, int]]:
    """Tokenise documents into shards in the job's state folder, from the last counts that were kept; counts by split."""
    job.state.mkdir(exist_ok=True)
    kept = job.state / "counts.json"
    counts, sums = read_record(kept) or (dict.fromkeys(SPLITS, NOTHING), {})
    if checksums(job.state, counts) != sums:
        job.event("state not used", f"{job.state}: what was written before is damaged: not used")
        counts, sums = dict.fromkeys(SPLITS, NOTHING), {}
    done = documents_of(counts)
    if done:
        job.event("resumed", f"resumes after {done:,} documents")
    begun = saved = shown = time.monotonic()
    begun_with = tokens_of(counts)
    with closing(tokenise(islice(documents, done, None), tokenizer, torch.get_num_threads())) as batches:
        for batch in batches:
            before, now = counts, time.monotonic()
            counts = before | {split: append(job.state, split, before[split], piece) for split, piece in batch.items()}
            full = any(counts[split]["tokens"] // SIZE > before[split]["tokens"] // SIZE for split in SPLITS)
            stop = job.should_stop()
            if full or stop or now - saved >= 60 * job.runtime.save_minutes:
                saved = now
                sums = checksums(job.state, counts, sums)
                write_record(kept, [counts, sums])
            if stop:
                job.stop()
            if now - shown >= job.runtime.progress_seconds:
                shown = now
                speed = (tokens_of(counts) - begun_with) / (now - begun)
                job.say(f"{documents_of(counts):,} documents, {tokens_of(counts):,} tokens, {speed:,.0f} tokens/s")
    write_record(kept, [counts, checksums(job.state, counts, sums)])
    return counts


def checksums(folder: Path, counts: dict[str, dict[str, int]], known: dict[str, list] | None = None) -> dict:
    """Shard → tokens that are counted in it, checksums of its ids and ends; full ones that are known are not read again."""
    found = {}
    for split, count in counts.items():
        for number in range(shard_count(count)):
            path, tokens = shard_path(folder, split, number), min(SIZE, count["tokens"] - number * SIZE)
            entry = (known or {}).get(path.name)
            if not (entry and entry[0] == SIZE):
                entry = [tokens, shard_checksums(path, tokens, count["ended"] if tokens < SIZE else None)]
            found[path.name] = entry
    return found


def documents_of(counts: dict[str, dict[str, int]]) -> int:
    return sum(count["documents"] for count in counts.values())


def tokens_of(counts: dict[str, dict[str, int]]) -> int:
    return sum(count["tokens"] for count in counts.values())


def share(source: Path, target: Path) -> None:
    """A second name for a file, a copy where the file system has none: the state stays whole until all is published."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


if __name__ == "__main__":
    run_stage(
        "prepare_corpus",
        __doc__,
        main,
        inputs={"dataset": "staged data set with documents", "tokenizer": "tokenizer of the chain"},
        settings=Dataset,
    )
