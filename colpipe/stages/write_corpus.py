"""An ancestor writes a corpus: it goes on from the openings of documents, for each split from those of the same split.

Openings are evenly spread over the documents, as many as the tokens need. What an ancestor with another tokenizer than
the chain's writes is decoded and tokenised again. Each batch has a seed of its own and is kept when it is done, so a job
that was cut off goes on with the next one and ends with the same text.
"""

import time
from collections import Counter
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.config.needs import require_enough
from colpipe.config.parts import Written
from colpipe.data.encoding import begin_entry, encode, encode_prompts
from colpipe.data.interleaving import spread_order
from colpipe.data.shard_writing import SPLITS, Batches, require_documents, stage_shards, write_shards
from colpipe.data.shards import Piece, Tokens, documents_in, id_type
from colpipe.data.tokenising import special_counter
from colpipe.errors import ColpipeError
from colpipe.evaluation.generation import completions
from colpipe.hf.generation_config import end_ids
from colpipe.hf.models import load_frozen, require_positions
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job
from colpipe.jobs.state import read_record, write_record

Batch = dict[str, Any]
HALF = "\N{REPLACEMENT CHARACTER}"  # a text ends with it that was cut inside a character


class Openings(NamedTuple):
    """The openings of a split's documents.

    Attributes:
        tokens: of the split.
        starts: (N,) positions of the documents that are long enough, in an order of which every beginning is evenly spread.
        short: documents that are not.
    """

    tokens: Tokens
    starts: np.ndarray
    short: int


class Writer(NamedTuple):
    """Who writes: an ancestor with its tokenizer; that of the chain, and whether it is another one."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chain: PreTrainedTokenizerBase
    foreign: bool


def main(job: Job[Written]) -> None:
    settings, tokenizer = job.settings, load_tokenizer(job.parents["tokenizer"])
    model = load_frozen(job.parents["writer"], settings.precision, pick_device(job.runtime.device))
    own = load_tokenizer(job.parents["writer"])
    writer = Writer(model, own, tokenizer, foreign=own.get_vocab() != tokenizer.get_vocab())
    openings = {split: openings_of(job, split) for split in SPLITS}
    wanted = {
        split: ceil(settings.tokens * len(each.tokens) / len(openings["train"].tokens))
        for split, each in openings.items()
    }
    if not writer.foreign:  # otherwise nobody knows how many tokens a document may have
        require_tokens(job, openings["train"], len(openings["train"].starts) * document_length(settings), "at most")

    job.state.mkdir(exist_ok=True)
    batches: list[tuple[str, Batch]] = []
    for split in SPLITS:
        batches += [
            (split, each) for each in write_split(job, split, openings[split], wanted[split], writer, len(batches))
        ]
    kind, special_in = id_type(len(tokenizer)), special_counter(tokenizer)

    def batches_after(done: int) -> Batches:
        for split, batch in batches:
            if documents := [np.array([*ids, tokenizer.eos_token_id], kind) for ids in batch["ids"][done:]]:
                ids, ends = np.concatenate(documents), np.cumsum([len(each) for each in documents])
                yield {split: Piece(ids, ends, np.array(batch["sizes"][done:]), special_in(ids, len(documents)))}
            done = max(0, done - len(batch["ids"]))

    left_out = {split: Counter(short=openings[split].short, empty=0, special=0) for split in SPLITS}
    for split, batch in batches:
        left_out[split].update(empty=batch["empty"], special=batch["special"])
    found = write_shards(job, batches_after)
    require_documents(job, found, {split: said(count, settings) for split, count in left_out.items()})
    counts = stage_shards(job, found, {split: said(count, settings) for split, count in left_out.items()})
    require_enough(job.output, counts, job.runtime)
    told = {split: {**counts[split], "left_out": dict(left_out[split])} for split in SPLITS}
    job.publish(counts=told, **begin_entry(tokenizer))


def document_length(settings: Written) -> int:
    """Of the longest document, its end-of-text with it, where the ancestor has the chain's tokenizer; tokens."""
    return settings.opening + settings.max_new_tokens + 1


def openings_of(job: Job[Written], split: str) -> Openings:
    folder, length = job.parents["openings"], job.settings.opening
    ends = documents_in(folder, split)[0]
    starts = np.concatenate([[0], ends[:-1]])
    usable = starts[ends - starts > length]  # the last one is the end-of-text
    return Openings(Tokens(folder, split), usable[spread_order(len(usable))], len(starts) - len(usable))


def require_tokens(job: Job[Written], openings: Openings, tokens: int, how: str) -> None:
    """Refuse to write, or to have written, less training text than was asked for.

    Raises:
        ColpipeError: it is less.
    """
    settings = job.settings
    if tokens < settings.tokens:
        raise ColpipeError(
            f"{job.output}: the {len(openings.starts):,} openings of {settings.openings} (training documents of "
            f"{settings.opening} tokens or more; {openings.short:,} are shorter) give {how} {tokens:,} tokens, and "
            f"written.tokens asks for {settings.tokens:,}; lower that, raise max_new_tokens, or take a corpus with more "
            "documents"
        )


def write_split(
    job: Job[Written], split: str, openings: Openings, wanted: int, writer: Writer, first: int
) -> list[Batch]:
    """Documents, batch by batch, until they have enough tokens or there are no more openings.

    A batch is not larger than the tokens that are missing need, if no document ends early: little is written in vain.

    Args:
        first: number of the first batch, which it is kept by and seeded with.

    Raises:
        ColpipeError: the training documents are not enough.
    """
    settings = job.settings
    batches: list[Batch] = []
    tokens = taken = generated = 0
    begun = shown = time.monotonic()
    while tokens < wanted and taken < len(openings.starts):
        count = min(settings.batch_size, ceil((wanted - tokens) / document_length(settings)))
        starts, number = openings.starts[taken : taken + count].tolist(), first + len(batches)
        kept = job.state / f"batch-{number:06d}.json"
        batch = read_record(kept)
        if batch is None or batch["openings"] != starts:
            if job.should_stop():
                job.stop()
            opened = [openings.tokens.read(start, start + settings.opening).tolist() for start in starts]
            batch = {"openings": starts, **write_on(writer, opened, settings, job.seed * 1_000_003 + number)}
            write_record(kept, batch)
            generated += 1
        batches.append(batch)
        taken += len(starts)
        tokens += sum(len(ids) + 1 for ids in batch["ids"])
        now = time.monotonic()
        if generated and (now - shown >= job.runtime.progress_seconds or tokens >= wanted):
            shown = now
            job.say(f"{split}: {tokens:,}/{wanted:,} tokens written")
            job.measure(step=number + 1, split=f"written {split}", tokens=tokens, seconds=round(now - begun, 1))
    if split == "train":
        require_tokens(job, openings, tokens, "only")
    elif tokens < wanted:
        job.say(f"{split}: all {taken:,} openings were used for {tokens:,} tokens; {wanted:,} would be in proportion")
    return batches


def write_on(writer: Writer, openings: list[list[int]], settings: Written, seed: int) -> Batch:
    """Documents that begin with a batch of openings, which are ids of the chain's tokenizer.

    Returns:
        `ids`, `sizes`: the chain's ids and the bytes of those that have a continuation; `empty`: how many have none;
        `special`: special tokens inside continuations, which are left out.

    Raises:
        ColpipeError: a document may be longer than the model's positions.
    """
    model, tokenizer, chain, foreign = writer
    opened = encode(tokenizer, [text.rstrip(HALF) for text in _texts(chain, openings)]) if foreign else openings
    what = f"the longest opening with max_new_tokens {settings.max_new_tokens}"
    prompts = encode_prompts(tokenizer, opened)
    require_positions(model, max(map(len, prompts)) + settings.max_new_tokens, what)
    written = completions(model, tokenizer, prompts, settings.max_new_tokens, settings.temperature, seed).tolist()
    ends, special = set(end_ids(model, tokenizer)), set(tokenizer.all_special_ids)
    found: Batch = {"ids": [], "sizes": [], "empty": 0, "special": 0}
    for opening, new in zip(opened, written, strict=True):
        new = new[: next((at for at, number in enumerate(new) if number in ends), len(new))]
        kept = [number for number in new if number not in special]
        begin, text = (each.rstrip(HALF) for each in _texts(tokenizer, [opening, [*opening, *kept]]))
        found["special"] += len(new) - len(kept)
        if text.strip() == begin.strip():
            found["empty"] += 1
            continue
        found["ids"].append(encode(chain, [text])[0] if foreign else [*opening, *kept])
        found["sizes"].append(len(text.encode()))
    return found


def _texts(tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)


def said(count: Counter[str], settings: Written) -> str:
    """What was left out of a split, in words."""
    return (
        f"left out: {count['short']:,} documents shorter than an opening ({settings.opening} tokens), "
        f"{count['empty']:,} without a continuation, {count['special']:,} special tokens inside continuations"
    )


if __name__ == "__main__":
    run_stage(
        "write_corpus",
        __doc__,
        main,
        inputs={
            "writer": "ancestor that writes, fine-tuned",
            "openings": "prepared corpus whose documents are opened with",
            "tokenizer": "tokenizer of the chain",
        },
        settings=Written,
    )
