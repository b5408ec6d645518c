"""Cached top-k teacher log-probabilities: computed once wherever there is loss, and used many times.

Where a student learns for several epochs, or several students of one teacher, the teacher runs once. A token takes top_k ×
(2 bytes of probability + 2 or 4 of id); the rest of the probability is one bucket (`objectives.TopK`).
"""

import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from colpipe.config.constants import CACHE_ROWS
from colpipe.data.tokens import IGNORE, collate
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import require_space
from colpipe.jobs.job import Job
from colpipe.jobs.state import checksum, read_record, starts_with, write_record
from colpipe.training.projection import loss_places, project

DONE = "done.json"
ARRAYS = ("ids", "logs")


def loss_tokens(items: Dataset) -> list[int]:
    """Tokens with loss of each item: position t predicts token t + 1, so the first has none."""
    return [int((items[index]["labels"][1:] != IGNORE).sum()) for index in range(len(items))]


def cache_log_probabilities(
    job: Job, teacher: PreTrainedModel, items: Dataset, top_k: int, vocabulary: int, pad: int, name: str
) -> None:
    """Write what a teacher says about items into the staging folder: `<name>-{ids,logs,starts}.npy`.

    Args:
        items: with input_ids and labels; in the order in which `WithCachedTeacher` gets them.
        top_k: most probable tokens kept.
        vocabulary: leading entries that count; the rest of a padded vocabulary is cropped.
        name: of the split.

    Raises:
        ColpipeError: the disk has no room for it.
    """
    counts = loss_tokens(items)
    starts = np.concatenate([[0], np.cumsum(counts)])
    kind = np.uint16 if vocabulary <= 2**16 else np.uint32
    size = int(starts[-1]) * top_k * (2 + np.dtype(kind).itemsize)
    job.say(f"{name}: {starts[-1]:,} tokens × {top_k} take {size / 1e6:,.1f} MB")
    job.state.mkdir(exist_ok=True)
    done_file, paths = job.state / f"{name}-{DONE}", [job.state / f"{name}-{array}.npy" for array in ARRAYS]
    record: tuple[int, list[int], list[int]] = read_record(done_file) or (0, [], [])
    done, ends, sums = record
    if done and not all(map(starts_with, paths, ends, sums)):
        job.event("state not used", f"{name}: what was written before is damaged: not used")
        done = 0
    if not done:
        require_space(job.state, size, "the cached log-probabilities")
    shape, mode = (int(starts[-1]), top_k), "r+" if done else "w+"
    ids, logs = arrays = [
        np.lib.format.open_memmap(path, mode, dtype, shape)
        for path, dtype in zip(paths, (kind, np.float16), strict=True)
    ]
    if not done:
        ends = [array.offset for array in arrays]  # behind the headers
        sums = [checksum(path, end) for path, end in zip(paths, ends, strict=True)]
    batch = job.runtime.micro_batch or CACHE_ROWS
    for first in range(done, len(items), batch):
        if job.should_stop():
            job.stop()
        rows = [items[index] for index in range(first, min(first + batch, len(items)))]
        top = _most_probable(teacher, collate(pad)(rows), top_k, vocabulary)
        part = slice(starts[first], starts[first + len(rows)])
        ids[part], logs[part] = top.indices.cpu().numpy(), top.values.cpu().numpy()
        for number, array in enumerate(arrays):
            array.flush()
            written = array[part].tobytes()
            ends[number] += len(written)
            sums[number] = zlib.crc32(written, sums[number])
        write_record(done_file, [first + len(rows), ends, sums])
    for path in paths:
        os.replace(path, job.staging / path.name)
    np.save(job.staging / f"{name}-starts.npy", starts)


@torch.inference_mode()
def _most_probable(teacher: PreTrainedModel, batch: dict, top_k: int, vocabulary: int) -> torch.return_types.topk:
    """Log-probabilities and ids (N, top_k) where there is loss."""
    batch = {name: value.to(teacher.device) for name, value in batch.items()}
    places = loss_places(batch.pop("labels"))
    return project(teacher, batch, places).cropped(vocabulary).log_probabilities(slice(None)).topk(top_k)


class WithCachedTeacher(Dataset):
    """Items with the columns `top_ids` and `top_logs` (T, k) of a cache.

    Raises:
        ColpipeError: the cache is of other items.
    """

    def __init__(self, items: Dataset, folder: Path, name: str):
        self.items = items
        self.starts = np.load(folder / f"{name}-starts.npy")
        self.ids = np.load(folder / f"{name}-ids.npy", mmap_mode="r")
        self.logs = np.load(folder / f"{name}-logs.npy", mmap_mode="r")
        if np.diff(self.starts).tolist() != loss_tokens(items):
            raise ColpipeError(
                f"{folder}: {name} has log-probabilities of {len(self.starts) - 1:,} items, {self.starts[-1]:,} tokens; the "
                f"data here are others ({len(items):,} items): the same data and max_length are needed"
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = self.items[index]
        part = slice(self.starts[index], self.starts[index + 1])
        has_loss = torch.cat([torch.tensor([False]), item["labels"][1:] != IGNORE])
        columns = {"top_ids": self.ids[part].astype(np.int64), "top_logs": self.logs[part].astype(np.float32)}
        for name, values in columns.items():
            values = torch.from_numpy(values)
            column = values.new_zeros(len(has_loss), values.shape[1])
            column[has_loss] = values
            item = {**item, name: column}
        return item
