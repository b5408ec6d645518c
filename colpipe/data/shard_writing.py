"""The shards of a corpus as a job writes them: counted, kept, gone on with after a kill, and staged when all are there.

The counts are kept when a shard is full and by the clock; a job that was cut off goes on behind the documents that they
count.
"""

import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path

from colpipe.data.shards import NOTHING, SIZE, Piece, append, shard_checksums, shard_count, shard_files
from colpipe.errors import ColpipeError
from colpipe.jobs.job import Job
from colpipe.jobs.state import read_record, write_record

SPLITS = ("train", "validation", "test")
Counts = dict[str, dict[str, int]]
"""split → its counts (`shards.append`)"""
Batches = Generator[Mapping[str, Piece], None, None]


def write_shards(job: Job, batches_after: Callable[[int], Batches]) -> Counts:
    """Write documents into shards in the job's state folder, from the last counts that were kept; counts by split.

    Args:
        batches_after: from a number of documents to a generator of those that come after so many: batch after batch, its
            documents by split. It is closed at the end.
    """
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
    with closing(batches_after(done)) as batches:
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


def require_documents(job: Job, counts: Counts, left_out: Mapping[str, str]) -> None:
    """Refuse a corpus of which a split is empty.

    Args:
        left_out: split → what of it is not used, in words.

    Raises:
        ColpipeError: names the split.
    """
    for split in SPLITS:
        if not counts[split]["documents"]:
            besides = f" (but {left_out[split]})" if split in left_out else ""
            raise ColpipeError(
                f"{job.output}: the {split} split has no documents{besides}; the data set needs more of them"
            )


def stage_shards(job: Job, counts: Counts, notes: Mapping[str, str]) -> Counts:
    """Stage the shards that were written for being published, and say what they hold; counts by split for the manifest.

    Args:
        notes: split → what to say of it besides.
    """
    found = {}
    for split in SPLITS:
        count = counts[split]
        found[split] = {name: count[name] for name in ("documents", "tokens", "bytes", "special")} | {
            "shards": shard_count(count)
        }
        for number in range(shard_count(count)):
            for each in shard_files(job.state, split, number):
                _share(each, job.staging / each.name)
        job.say(
            f"{split}: {count['documents']:,} documents, {count['tokens']:,} tokens, "
            f"{count['bytes'] / count['tokens']:.2f} bytes a token" + (f"; {notes[split]}" if split in notes else "")
        )
        if count["special"]:
            job.say(
                f"{split}: {count['special']:,} times the text of a special token became that token, which this tokenizer "
                "cannot keep as text: a document may seem to end there"
            )
    return found


def checksums(folder: Path, counts: Counts, known: dict[str, list] | None = None) -> dict:
    """Shard → tokens that are counted in it, checksums of its ids and ends; full ones that are known are not read again."""
    found = {}
    for split, count in counts.items():
        for number in range(shard_count(count)):
            files, tokens = shard_files(folder, split, number), min(SIZE, count["tokens"] - number * SIZE)
            entry = (known or {}).get(files[0].name)
            if not (entry and entry[0] == SIZE):
                entry = [tokens, shard_checksums(files, tokens, count["ended"] if tokens < SIZE else None)]
            found[files[0].name] = entry
    return found


def documents_of(counts: Counts) -> int:
    return sum(count["documents"] for count in counts.values())


def tokens_of(counts: Counts) -> int:
    return sum(count["tokens"] for count in counts.values())


def _share(source: Path, target: Path) -> None:
    """A second name for a file, a copy where the file system has none: the state stays whole until all is published."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
