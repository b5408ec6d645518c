"""Turn a data set's instructions into prompts and completions per split; rows that are too long are counted and left out."""

import hashlib
import json

from colpipe.data.prompts import prompt
from colpipe.data.readers import read
from colpipe.errors import ColpipeError
from colpipe.job import Job, run_stage
from colpipe.settings import Dataset, Instructions, Strict
from colpipe.training.models import load_tokenizer


class Settings(Strict):
    dataset: Dataset
    instructions: Instructions


def main(job: Job) -> None:
    settings: Instructions = job.settings.instructions
    tokenizer = load_tokenizer(job.parents["tokenizer"])
    rows: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    kinds = set()
    for record in read(job.settings.dataset, job.parents["dataset"]):
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
        kept, too_long = [], 0
        for record in records:
            if wanted and len(kept) == wanted:
                break
            row = {"prompt": prompt(record["instruction"], record["input"]), "completion": record["output"]}
            if len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) >= settings.max_tokens:
                too_long += 1
                continue
            row |= {key: record[key] for key in ("id", "kind", "choices") if key in record}
            kept.append(row)
        if not kept:
            raise ColpipeError(
                f"{job.output}: the {split} split has no rows ({len(records)} were read, {too_long} are longer than "
                f"max_tokens {settings.max_tokens})"
            )
        with open(job.staging / f"{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        counts[split] = {"rows": len(kept), "read": len(records), "too_long": too_long}
        job.say(f"{split}: {len(kept):,} of {len(records):,} rows, {too_long:,} passed over as too long")
    job.publish(counts=counts)


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
