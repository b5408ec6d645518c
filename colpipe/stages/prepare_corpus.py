"""Tokenise a data set's documents end to end, with end-of-text after each, into one array per split."""

import numpy as np

from colpipe.data.records import read
from colpipe.errors import ColpipeError
from colpipe.job import Job, run_stage
from colpipe.settings import Dataset
from colpipe.training.models import load_tokenizer

BATCH = 1000  # documents tokenised together


def main(job: Job) -> None:
    tokenizer = load_tokenizer(job.parents["tokenizer"])
    texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for record in read(job.settings, job.parents["dataset"]):
        if record.get("text"):
            texts[record["split"]].append(record["text"])
    counts = {}
    for split, documents in texts.items():
        if not documents:
            raise ColpipeError(f"{job.output}: the {split} split has no documents; the data set needs more of them")
        pieces = []
        for start in range(0, len(documents), BATCH):
            for ids in tokenizer(documents[start : start + BATCH], add_special_tokens=False)["input_ids"]:
                pieces.append([*ids, tokenizer.eos_token_id])
        narrow = len(tokenizer) <= np.iinfo(np.uint16).max + 1
        tokens = np.fromiter((id for piece in pieces for id in piece), dtype=np.uint16 if narrow else np.uint32)
        np.save(job.staging / f"{split}.npy", tokens)
        size = sum(len(document.encode()) for document in documents)
        counts[split] = {"documents": len(documents), "tokens": len(tokens), "bytes": size}
        job.say(
            f"{split}: {len(documents):,} documents, {len(tokens):,} tokens, {size / len(tokens):.2f} bytes a token"
        )
    job.publish(counts=counts)


if __name__ == "__main__":
    run_stage(
        "prepare_corpus",
        __doc__,
        main,
        inputs={"dataset": "staged data set with documents", "tokenizer": "tokenizer of the chain"},
        settings=Dataset,
    )
