"""What a study has come to: its table, its published models, what failed, the next command, and a sentence of two models.

colpipe show results/my-study
colpipe show results/my-study --figure docs/my-study   # its first figure, for light and dark pages; prints what shows them
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import MANIFEST, content_files, read_manifest
from colpipe.reporting.continuations import two_lines
from colpipe.reporting.exports import read_exports
from colpipe.reporting.history import read_events
from colpipe.tools.parser import Parser

MOST = 5  # failures that are told
WIDTH = 100  # columns, those of summary.txt


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("show", __doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results/<study>")
    parser.add_argument(
        "--figure", type=Path, metavar="PATH", help="draw loss against parameters as PATH-light.svg and PATH-dark.svg"
    )
    asked = parser.parse_args(arguments)
    print(draw(asked.results, asked.figure) if asked.figure else "\n\n".join(sections(asked.results)))


def draw(results: Path, figure: Path) -> str:
    """Write the first figure of a study in both variants.

    Args:
        results: a folder with a `summary.csv`, of a finished study or beside the documents that show it.
        figure: where, without `-light.svg` and `-dark.svg`.

    Returns:
        What shows them in a README, for whoever has a light or a dark page.

    Raises:
        ColpipeError: there is no summary, or none with a DesNet's held-out loss.
    """
    import pandas as pd  # spared those who only look

    from colpipe.reporting.family_chart import LABEL, as_file, family

    path = results / "summary.csv"
    if not path.exists():
        raise ColpipeError(f"{path}: not there yet; `colpipe run` the study first")
    drawn = family(pd.read_csv(path))
    if drawn is None:
        raise ColpipeError(f"{path}: no DesNet in it has a held-out loss: name a corpus under perplexity")
    figure.parent.mkdir(parents=True, exist_ok=True)
    light, dark = (figure.with_name(f"{figure.name}-{variant}.svg") for variant in ("light", "dark"))
    light.write_text(as_file(drawn, dark=False))
    dark.write_text(as_file(drawn, dark=True))
    return "\n".join(
        [
            "<picture>",
            f'  <source media="(prefers-color-scheme: dark)" srcset="{dark}">',
            f'  <img alt="{LABEL}" src="{light}">',
            "</picture>",
        ]
    )


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
    if models := _in_order(card.parent for card in (results / "published").rglob("README.md")):
        yield "\n".join(["Models, to use or upload as they are:", *(f"    {_model(folder)}" for folder in models)])
    if files := _in_order(path.parent for path in (results / "exported").rglob(MANIFEST)):
        lines = [f"    {line}" for folder in files for line in _files(folder)]
        yield "\n".join(["Files for llama.cpp and Ollama:", *lines])
    failed = [event for event in read_events(results) if event.kind == "failed" and not event.ended]
    if failed:
        more = [f"    and {len(failed) - MOST:,} more"] if len(failed) > MOST else []
        yield "\n".join(["Failed:", *(f"    {event.job}: {event.text}" for event in failed[-MOST:]), *more])
    yield "\n".join(_next(results, summary.exists(), bool(models)))
    if lines := two_lines(results, WIDTH):
        yield "\n".join(lines)


def _manifests(results: Path) -> list[Path]:
    """Of everything but jobs at work; what a job replaces is not finished."""
    return sorted(path for path in results.rglob(MANIFEST) if path.relative_to(results).parts[0] != "work")


def _in_order(folders: Iterable[Path]) -> list[Path]:
    """As the summary has them: members of the chain before DesNets, the largest first."""
    return sorted(folders, key=lambda folder: ("desnets" in folder.parts, -_weights(folder), folder))


def _weights(folder: Path) -> int:
    """Bytes of a model's weights, or of its GGUF files."""
    return sum(path.stat().st_size for path in content_files(folder) if path.suffix in (".safetensors", ".gguf"))


def _model(folder: Path) -> str:
    return f"{folder}  {_weights(folder) / 1e6:,.1f} MB"


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
