"""A data set's instructions, split by split; rows that are too long are counted and left out."""

import hashlib
import json
from collections import Counter

from colpipe.config.parts import Dataset, Instructions, Strict
from colpipe.data.file_counts import FileCounts
from colpipe.data.prompts import prompt
from colpipe.data.records import read
from colpipe.errors import ColpipeError
from colpipe.hf.models import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job

FIELDS = ("id", "kind", "instruction", "input", "output", "references", "choices")
TESTED = ("likelihood",)  # kept of test rows only


class Settings(Strict):
    dataset: Dataset
    instructions: Instructions


def main(job: Job[Settings]) -> None:
    settings = job.settings.instructions
    tokenizer = load_tokenizer(job.parents["tokenizer"])
    rows: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    kinds: set[str] = set()
    left_out: Counter[str] = Counter()
    places: dict[str, str] = {}
    files = FileCounts(job.settings.dataset, job.parents["dataset"])
    for record in read(job.settings.dataset, job.parents["dataset"]):
        if "left_out" in record:
            left_out[record["left_out"]] += 1
            places.setdefault(record["left_out"], str(record["place"]))
        if "instruction" not in record:
            continue
        kinds.add(record["kind"])
        if not settings.kinds or record["kind"] in settings.kinds:
            rows[record["split"]].append(record)
    if unknown := set(settings.kinds) - kinds:
        raise ColpipeError(f"{job.output}: the data set has no rows of kind {sorted(unknown)}; it has {sorted(kinds)}")
    counts = {}
    for split, records in rows.items():
        records.sort(key=_shuffled)
        wanted = settings.train_rows if split == "train" else settings.test_rows
        kept: list[dict] = []
        too_long = 0
        for record in records:
            if wanted and len(kept) == wanted:
                break
            text = prompt(record["instruction"], record["input"]) + record["output"]
            if len(tokenizer(text)["input_ids"]) >= settings.max_tokens:
                too_long += 1
                continue
            files.add(record)
            kept.append(
                {name: record[name] for name in (*FIELDS, *(TESTED if split == "test" else ())) if name in record}
            )
        if records and not kept:
            raise ColpipeError(
                f"{job.output}: the {split} split has no rows ({len(records)} were read, {too_long} are longer than "
                f"max_tokens {settings.max_tokens})"
            )
        with open(job.staging / f"{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        counts[split] = {"rows": len(kept), "read": len(records), "too_long": too_long}
        job.say(f"{split}: {len(kept):,} of {len(records):,} rows, {too_long:,} passed over as too long")
    if not any(count["rows"] for count in counts.values()):
        raise ColpipeError(f"{job.output}: the data set has no instructions; the reader left out {dict(left_out)}")
    for reason, count in left_out.items():
        job.say(f"{count:,} rows left out: {reason} (the first: {places[reason]})")
    for line in files.lines():
        job.say(line)
    job.publish(counts=counts, left_out=dict(sorted(left_out.items())), **files.manifest())


def _shuffled(record: dict) -> str:
    """An order that mixes kinds and sources, the same on every machine."""
    return hashlib.sha256(f"{record['kind']}/{record['id']}".encode()).hexdigest()


if __name__ == "__main__":
    run_stage(
        "prepare_instructions",
        __doc__,
        main,
        inputs={"dataset": "staged data set with instructions", "tokenizer": "tokenizer of the chain"},
        settings=Settings,
    )
