"""How many rows of every file of a data set are used, in which splits, and why in those: for manifests and logs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from colpipe.config.parts import Dataset
from colpipe.data.files import some, split_in_name
from colpipe.data.records import Record, read_files

LISTED = 1000  # files that a manifest lists one by one


class FileCounts:
    """Counts of the rows that are used of a staged data set.

    Attributes:
        rows: file → split → rows; files without any are there too.
        ignored: files that are known to hold no rows.
        by_hash: rows whose split is by hash of their group.
    """

    def __init__(self, dataset: Dataset, folder: Path):
        names, self.ignored = read_files(dataset, folder)
        self.dataset = dataset
        self.rows: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.by_hash = 0

    def add(self, record: Record) -> None:
        """Count a row that is used."""
        self.rows[record["place"].name][record["split"]] += 1
        self.by_hash += record["by_hash"]

    def counted(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records, counted as they pass."""
        for record in records:
            self.add(record)
            yield record

    def manifest(self) -> dict:
        """For the manifest: counts by file, or by folder where there are very many files."""
        many, found = len(self.rows) > LISTED, dict[str, Counter[str]]()
        for name, counts in self.rows.items():
            key = str(PurePath(name).with_name(f"*{PurePath(name).suffix}")) if many else name
            found[key] = found.get(key, Counter()) + counts
        by_file = {name: dict(sorted(counts.items())) for name, counts in found.items()}
        return {"by_file": by_file, "ignored": self.ignored, "split_by_hash": self.by_hash}

    def lines(self) -> Iterator[str]:
        """For the log: what was read, and how it was split."""
        total = sum(counts.total() for counts in self.rows.values())
        used = [f"{name} {counts.total():,}" for name, counts in self.rows.items() if counts]
        empty = [name for name, counts in self.rows.items() if not counts]
        line = f"{total:,} rows used: {some(used)}"
        line += f"; none of {some(empty)}" if empty else ""
        yield line + (f"; no data: {some(self.ignored)}" if self.ignored else "")
        splits = sum(self.rows.values(), Counter())
        counts = ", ".join(f"{name} {splits[name]:,}" for name in ("train", "validation", "test"))
        if not self.by_hash:
            yield f"splits: {counts}: as the reader takes them from the files"
            return
        line = f"splits: {counts}: {self.by_hash:,} rows by hash of their group"
        unheeded = [
            name for name, counts in self.rows.items() if len(counts) > 1 and split_in_name(name) not in (None, "train")
        ]
        yield line + (
            f"; the {self.dataset.reader} reader does not heed the names of {some(unheeded)}" if unheeded else ""
        )
