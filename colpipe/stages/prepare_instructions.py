"""A data set's instructions, split by split; rows that are too long, or ask or answer nothing, are counted and left out.

A row without an answer would teach a model nothing but to end at once.
"""

import hashlib
import json
from collections import Counter

from colpipe.config.needs import require_enough
from colpipe.config.parts import Dataset, Instructions, Prompts, Strict
from colpipe.data.encoding import begin_id, begun, encode
from colpipe.data.file_counts import FileCounts
from colpipe.data.last_word import LAST_WORD, guessable_last_word, last_word_row
from colpipe.data.prompts import chat_prompt, prompt
from colpipe.data.records import Record, read
from colpipe.data.rows import PREPARED
from colpipe.errors import ColpipeError
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job

FIELDS = ("id", "kind", "instruction", "input", "output", "references", "choices")
TESTED = ("likelihood",)  # kept of test rows only


class Settings(Strict):
    dataset: Dataset
    instructions: Instructions
    prompts: Prompts = "paper"


def main(job: Job[Settings]) -> None:
    settings = job.settings.instructions
    tokenizer = load_tokenizer(job.parents["tokenizer"])
    begin = begin_id(tokenizer)
    rows: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    kinds: set[str] = set()
    left_out: Counter[str] = Counter()
    places: dict[str, str] = {}
    files = FileCounts(job.settings.dataset, job.parents["dataset"])
    for record in read(job.settings.dataset, job.parents["dataset"]):
        if LAST_WORD in settings.kinds:
            record = as_last_word(record)
        if "left_out" in record:
            left_out[record["left_out"]] += 1
            places.setdefault(record["left_out"], str(record["place"]))
        if "instruction" not in record:
            continue
        kinds.add(record["kind"])
        if settings.kinds and record["kind"] not in settings.kinds:
            continue
        answered, reason = with_answer(record), "empty answer"
        if not (record["instruction"].strip() or record["input"].strip()):
            answered, reason = None, "empty instruction"
        if answered:
            rows[record["split"]].append(answered)
        else:
            left_out[reason] += 1
            places.setdefault(reason, str(record["place"]))
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
            question = (record["instruction"], record["input"])
            chat = chat_prompt(tokenizer, *question) if job.settings.prompts == "chat" else None
            asked, answer = encode(tokenizer, [chat or prompt(*question), record["output"]])
            asked = begun(chat or "", asked, begin)
            if len(asked) + len(answer) + 1 > settings.max_tokens:  # and end-of-text
                too_long += 1
                continue
            files.add(record)
            row = {name: record[name] for name in (*FIELDS, *(TESTED if split == "test" else ())) if name in record}
            kept.append({**row, PREPARED: asked} if chat else row)
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
    require_enough(job.output, counts, job.runtime)
    job.publish(counts=counts, left_out=dict(sorted(left_out.items())), **files.manifest())


def as_last_word(record: Record) -> Record:
    """Of a document for testing, the row that asks for the last word of one of its sentences, or why there is none; any
    other record as it is."""
    if "text" not in record or record["split"] != "test":
        return record
    found = guessable_last_word(record["text"])
    if found is None:
        return {"left_out": "no sentence whose last word can be guessed", "place": record["place"]}
    return {**record, **last_word_row(*found)}


def with_answer(record: Record) -> Record | None:
    """A record with its answers that are not blank, the first as its `output`; None where it has none."""
    references = [text for text in record.get("references", [record["output"]]) if text.strip()]
    if not references:
        return None
    output = record["output"] if record["output"].strip() else references[0]
    return {**record, "output": output, **({"references": references} if "references" in record else {})}


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
