"""What a study has come to: its table, its published models, what failed, and the next command.

colpipe show results/my-study
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import MANIFEST, content_files, read_manifest
from colpipe.reporting.exports import read_exports
from colpipe.reporting.history import read_events

MOST = 5  # failures that are told


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="colpipe show", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results/<study>")
    print("\n\n".join(sections(parser.parse_args(arguments).results)))


def sections(results: Path) -> Iterator[str]:
    """Paragraphs of text.

    Args:
        results: `results/<study>/`, finished or not.

    Raises:
        ColpipeError: no study's results lie there.
    """
    if not results.is_dir():
        near = (
            sorted(path.name for path in results.parent.glob("*") if path.is_dir()) if results.parent.is_dir() else []
        )
        raise ColpipeError(f"{results}: no such folder{'; there are ' + ', '.join(near) if near else ''}")
    if studies := sorted(path.parent.name for path in results.glob("*/work") if path.is_dir()):
        raise ColpipeError(f"{results}: holds several studies: {', '.join(studies)}; give one")
    stages = Counter(read_manifest(path.parent)["stage"] for path in _manifests(results))
    if not stages:
        raise ColpipeError(f"{results}: holds no results of a study; give results/<study>")
    summary = results / "summary.txt"
    if summary.exists():
        yield summary.read_text().rstrip()
    yield f"Finished: {', '.join(f'{count:,} {stage}' for stage, count in stages.items())}."
    if models := sorted((results / "published").rglob("README.md")):
        yield "\n".join(["Models, to use or upload as they are:", *(f"    {_model(card.parent)}" for card in models)])
    if files := sorted(path.parent for path in (results / "exported").rglob(MANIFEST)):
        lines = [f"    {line}" for folder in files for line in _files(folder)]
        yield "\n".join(["Files for llama.cpp and Ollama:", *lines])
    failed = [event for event in read_events(results) if event.kind == "failed" and not event.ended]
    if failed:
        more = [f"    and {len(failed) - MOST:,} more"] if len(failed) > MOST else []
        yield "\n".join(["Failed:", *(f"    {event.job}: {event.text}" for event in failed[-MOST:]), *more])
    yield "\n".join(_next(results, summary.exists(), bool(models)))


def _manifests(results: Path) -> list[Path]:
    """Of everything but jobs at work; what a job replaces is not finished."""
    return sorted(path for path in results.rglob(MANIFEST) if path.relative_to(results).parts[0] != "work")


def _model(folder: Path) -> str:
    weights = sum(path.stat().st_size for path in content_files(folder) if path.suffix == ".safetensors")
    return f"{folder}  {weights / 1e6:,.1f} MB"


def _files(folder: Path) -> Iterator[str]:
    found = read_exports(folder)
    if found.refused:
        yield f"{folder}  none: {found.refused}"
    for path in content_files(folder):
        if path.suffix == ".gguf":
            speed = found.speeds.get(path.stem.rpartition("-")[2])
            told = f", {speed['answer']:,.0f} tokens/s" if speed else ""
            yield f"{path}  {path.stat().st_size / 1e6:,.1f} MB{told}"


def _next(results: Path, reported: bool, published: bool) -> Iterator[str]:
    if reported:
        yield f"The page: {results}/report.html  The numbers: {results}/summary.csv"
    study = f"the study of {results}"
    if not reported:
        yield f"Not finished: `colpipe run` {study} again goes on where it stopped."
    elif not published:
        yield f"For model folders with a card: `colpipe run STUDY published`, STUDY being {study}."
