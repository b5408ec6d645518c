"""Documents → token ids, on several processes, in the documents' order.

A process gets a batch, and the next one when it has given that one back, so a handful of batches exists at a time however
long the corpus is. What comes out does not depend on the number of processes, nor on where batches begin.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
from transformers import PreTrainedTokenizerBase

from colpipe.data.encoding import confused_ids
from colpipe.data.shards import Piece, id_type
from colpipe.data.words import encoder
from colpipe.errors import ColpipeError

BATCH = 2**18  # characters tokenised together; a batch ends with the document that reaches it

Document = tuple[str, str]  # split, text


def tokenise(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, workers: int
) -> Generator[dict[str, Piece], None, None]:
    """Batch after batch, its documents by split. Close the generator to end its processes.

    Args:
        workers: processes that tokenise; this one reads and waits.

    Raises:
        ColpipeError: one of the processes ended early.
    """
    gc.freeze()  # a collection that looked at what is loaded, here or there, would make copies of shared pages
    pipes, processes = zip(*(_start(tokenizer) for _ in range(workers)), strict=True)
    waiting: list[Connection] = []
    try:
        for pipe, batch in zip(cycle(pipes), _batches(documents), strict=False):
            if len(waiting) < workers:
                pipe.send(batch)
            else:
                pieces = waiting.pop(0).recv()
                pipe.send(batch)  # before the pieces are dealt with: its process need not wait for that
                yield pieces
            waiting.append(pipe)
        for pipe in waiting:
            yield pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise ColpipeError(
            "a tokenising process ended early: its error is above; if there is none, it was killed, perhaps for memory: "
            "use fewer threads (OMP_NUM_THREADS) or more memory"
        ) from None
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()
        gc.unfreeze()


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document[1])
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _start(tokenizer: PreTrainedTokenizerBase) -> tuple[Connection, BaseProcess]:
    """A process that tokenises, forked: it shares what is loaded, and need not import it again."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(ours, theirs, tokenizer))
    process.start()
    theirs.close()
    return ours, process


def _work(ours: Connection, theirs: Connection, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tokenise what comes until the pipe is closed, as it is when the parent was killed."""
    ours.close()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # a scheduler may tell all processes to stop; the parent saves first
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    piece_of = piece_maker(tokenizer)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            texts: dict[str, list[str]] = {}
            for split, text in theirs.recv():
                texts.setdefault(split, []).append(text)
            theirs.send({split: piece_of(of_split) for split, of_split in texts.items()})


def piece_maker(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], Piece]:
    """Function that tokenises documents, in this process."""
    kind = id_type(len(tokenizer))
    encode, end = encoder(tokenizer, kind), np.array(tokenizer.eos_token_id, kind).tobytes()
    special_in = special_counter(tokenizer)

    def piece_of(texts: list[str]) -> Piece:
        encoded = encode(texts)
        ids = np.frombuffer(b"".join(ids + end for ids in encoded), kind)
        ends = np.cumsum([len(ids) // kind.itemsize + 1 for ids in encoded])
        sizes = np.array([len(text.encode()) for text in texts])
        return Piece(ids, ends, sizes, special_in(ids, len(texts)))

    return piece_of


def special_counter(tokenizer: PreTrainedTokenizerBase) -> Callable[[np.ndarray, int], int]:
    """Function from the ids of documents, and how many documents they are, to how many special tokens the tokenizer made of
    their text (`confused_ids`)."""
    confused = confused_ids(tokenizer)

    def special_in(ids: np.ndarray, documents: int) -> int:  # the ends of the documents are meant to be special
        return int(np.isin(ids, confused).sum()) - documents * (tokenizer.eos_token_id in confused) if confused else 0

    return special_in
