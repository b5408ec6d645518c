"""What the GGUF files of a model are, as reports show them: bytes, and how fast llama.cpp was (no torch here)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from colpipe.config.layout import Layout
from colpipe.config.study import Study
from colpipe.jobs.artifacts import read_manifest


class Exports(NamedTuple):
    """Attributes:
    bytes: type → size of its file; empty where llama.cpp does not take the model.
    speeds: type → `prompt` and `answer`, tokens a second, and `threads`; of those that were measured.
    notes: what is different in llama.cpp.
    refused: why there are no files.
    """

    bytes: Mapping[str, int]
    speeds: Mapping[str, Mapping]
    notes: list[str]
    refused: str


def read_exports(folder: Path) -> Exports:
    """Of a model's folder under `exported/`."""
    made, metrics = read_manifest(folder), folder / "metrics.jsonl"
    records = map(json.loads, metrics.read_text().splitlines() if metrics.exists() else [])
    speeds = {record["type"]: record for record in records if record["split"] == "speed"}
    return Exports(made["bytes"], speeds, made["notes"], made.get("refused", ""))


def refusals(study: Study, results: Path) -> Iterator[str]:
    """A line for each reason why reported models have no GGUF files."""
    if study.stages.export.reported:
        reasons: dict[str, list[str]] = {}
        for path in Layout(study).exports:
            if reason := read_exports(results / path).refused:
                reasons.setdefault(reason, []).append(path)
        for reason, paths in reasons.items():
            yield f"No GGUF files of {len(paths):,} models: {reason}."
