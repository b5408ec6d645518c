"""Mix prepared corpora by weights, their shares of the tokens, into one.

As many tokens as the scarcest part allows, of the others evenly spread documents; no document is there twice. The documents
of all parts are interleaved, so that any evenly spread part of the mixture has about the same shares.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from colpipe.config.needs import require_enough
from colpipe.config.parts import Name, Strict, Weight
from colpipe.data.encoding import begin_entry
from colpipe.data.interleaving import evenly_spread, interleaved, largest_mixture
from colpipe.data.shard_writing import SPLITS, Batches, require_documents, stage_shards, write_shards
from colpipe.data.shards import Piece, Tokens, documents_in, id_type
from colpipe.data.tokenising import special_counter
from colpipe.errors import ColpipeError
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job

BATCH = 2**18  # tokens that are written together; a batch ends with the document that reaches it


class Settings(Strict):
    shares: dict[Name, Weight]
    """Part → its share of the tokens, together 1."""


class Part(NamedTuple):
    """A split of a corpus that is mixed.

    Attributes:
        tokens: of all its documents.
        starts, ends: (D,) positions of its documents, their end-of-text with them.
        sizes: (D,) bytes of their text.
        chosen: (K,) indices of the documents that are taken.
    """

    tokens: Tokens
    starts: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray
    chosen: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(K,) of the documents that are taken, tokens."""
        return (self.ends - self.starts)[self.chosen]


def main(job: Job[Settings]) -> None:
    tokenizer = load_tokenizer(job.parents["tokenizer"])
    folders, shares = job.parents_of("data"), job.settings.shares
    parts = {split: choose(folders, shares, split) for split in SPLITS}
    used = {split: {name: _counted(part) for name, part in of_split.items()} for split, of_split in parts.items()}
    for split, counts in used.items():
        job.say(f"{split}: {', '.join(_said(name, count, counts) for name, count in counts.items())}")
    if missing := [name for name, count in used["train"].items() if not count["documents"]]:
        raise ColpipeError(
            f"{job.output}: the train split has no document of {missing[0]}: its share is less than half of one, because "
            "the other parts are scarce; give it a larger weight, or the others more text"
        )
    kind, special_in = id_type(len(tokenizer)), special_counter(tokenizer)

    def batches_after(done: int) -> Batches:
        for split, of_split in parts.items():
            every = list(of_split.values())
            which, index = interleaved([part.lengths for part in every])
            which, index, done = which[done:], index[done:], max(0, done - len(which))
            ids: list[np.ndarray] = []
            sizes: list[int] = []
            waiting = 0
            for number, (part, place) in enumerate(zip(which.tolist(), index.tolist(), strict=True), 1):
                document = every[part].chosen[place]
                ids.append(every[part].tokens.read(every[part].starts[document], every[part].ends[document]))
                sizes.append(every[part].sizes[document])
                waiting += len(ids[-1])
                if waiting >= BATCH or number == len(which):
                    joined = np.concatenate(ids).astype(kind)
                    ends = np.cumsum([len(each) for each in ids])
                    yield {split: Piece(joined, ends, np.array(sizes), special_in(joined, len(ids)))}
                    ids, sizes, waiting = [], [], 0

    found = write_shards(job, batches_after)
    require_documents(job, found, {})
    counts = stage_shards(job, found, {})
    require_enough(job.output, counts, job.runtime)
    job.publish(counts=counts, **begin_entry(tokenizer), parts=used)


def choose(folders: Mapping[str, Path], shares: Mapping[str, float], split: str) -> dict[str, Part]:
    """The documents that each part gives to a split, parts in the order of their names."""
    found = {name: (Tokens(folders[name], split), *documents_in(folders[name], split)) for name in sorted(shares)}
    total = largest_mixture({name: len(tokens) for name, (tokens, *_) in found.items()}, shares)
    parts = {}
    for name, (tokens, ends, sizes) in found.items():
        starts = np.concatenate([[0], ends[:-1]])
        parts[name] = Part(tokens, starts, ends, sizes, evenly_spread(ends - starts, total * shares[name]))
    return parts


def _counted(part: Part) -> dict[str, int]:
    used = int(part.lengths.sum())
    return {
        "documents": len(part.chosen),
        "tokens": used,
        "left_out_documents": len(part.ends) - len(part.chosen),
        "left_out_tokens": len(part.tokens) - used,
    }


def _said(name: str, count: Mapping[str, int], counts: Mapping[str, Mapping[str, int]]) -> str:
    total = sum(each["tokens"] for each in counts.values())
    line = f"{name} {count['tokens']:,} tokens ({count['tokens'] / max(1, total):.1%})"
    left = f", {count['left_out_documents']:,} documents with {count['left_out_tokens']:,} tokens left out"
    return line + (left if count["left_out_documents"] else "")


if __name__ == "__main__":
    run_stage(
        "mix_corpus",
        __doc__,
        main,
        inputs={"data*": "prepared corpora that are mixed", "tokenizer": "tokenizer of the chain"},
        settings=Settings,
    )
