"""Compare finished studies: tables and figures of held-out loss, the mean over studies and their spread.

Every metric of every model goes to scores.csv. DesNets' losses go to losses.csv, table.md and curves.svg (where there are
many sizes, those that are recovered; all of them at 0 tokens, of one seed, to sizes.md and sizes.svg); where a study has
several chains, their members to chain.csv, chain.md and chain.svg, their losses along training to chain-along.md. How
methods differ from one, seed by seed, goes to differences.md (DesNets at 0 tokens) and chain-differences.md. Tables of
the paper that all studies have go to files of their names.

python -m colpipe.tools.compare results/initialisers-0 results/initialisers-1 --output docs/initialisers

The studies differ in their seed only, or they would not be one experiment.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from colpipe.errors import ColpipeError
from colpipe.evaluation.uniform import is_broken, uniform_guess
from colpipe.reporting.compare import (
    along_table,
    by_size,
    chain_curves,
    chain_frame,
    chain_table,
    curves_of,
    differences,
    losses,
    paper_tables,
    scores,
    spread,
    summaries,
    vocabulary_of,
    wide,
)
from colpipe.reporting.figures import loss_against_tokens
from colpipe.reporting.markdown import markdown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m colpipe.tools.compare",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="results/<study> of finished studies")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the tables and figures")
    parser.add_argument(
        "--reference",
        metavar="METHOD",
        help="method that differences are from: 'ANCESTOR INITIALISER' (default: the first)",
    )
    arguments = parser.parse_args()
    try:
        compare(arguments.results, arguments.output, arguments.reference)
    except (ColpipeError, OSError) as error:
        sys.exit(f"compare: error: {error}")


def compare(results: list[Path], output: Path, reference: str | None) -> None:
    """Write all tables and figures."""
    every = losses(results)
    frame = spread(every)
    output.mkdir(parents=True, exist_ok=True)
    vocabulary = vocabulary_of(results)
    every_score = scores(summaries(results))
    every_score.to_csv(output / "scores.csv", index=False, float_format="%.4f")
    for name, numbers in paper_tables(results).items():
        numbers.to_csv(output / f"{name}.csv", index=False, float_format="%.4f")
    sizes, curves = by_size(every)
    if curves:
        (output / "sizes.md").write_text(markdown(sizes) + _remark(every[every.tokens == 0], vocabulary))
        figure = loss_against_tokens({"DesNets at 0 tokens": curves}, "parameters", vocabulary)
        (output / "sizes.svg").write_text(figure)
    if (frame.tokens >= 0).any():
        recovered = frame[frame.tokens > 0].desnet
        shown = frame[frame.desnet.isin(recovered)] if curves and len(recovered) else frame
        panels = curves_of(results, shown)
        write(output, ("losses", "table", "curves"), frame, wide(shown), panels, "recovery tokens", vocabulary)
        built = every[every.tokens == 0].assign(
            method=(every.ancestor + " " + every.init).str.strip(), model=every.desnet
        )
        compare_by_seed(output / "differences.md", built, reference)
    if frame[frame.init == "distilled"].ancestor.nunique() > 1:
        members = chain_frame(results, frame)
        panels = chain_curves(results, members)
        write(output, ("chain", "chain", "chain"), members, chain_table(members), panels, "steps", vocabulary)
        if panels:
            (output / "chain-along.md").write_text(markdown(along_table(panels)))
        chains = every[every.init == "distilled"].assign(method=every.ancestor, model=every.desnet)
        compare_by_seed(output / "chain-differences.md", chains, reference and reference.split()[0])


def write(
    folder: Path,
    names: tuple[str, str, str],
    frame: pd.DataFrame,
    table: pd.DataFrame,
    panels: dict,
    along: str,
    vocabulary: int | None,
) -> None:
    """All numbers, the table that people read, which is printed too, and the figure, where there are curves."""
    numbers, readable, figure = names
    frame.to_csv(folder / f"{numbers}.csv", index=False, float_format="%.4f")
    text = markdown(table) + _remark(frame, vocabulary)
    (folder / f"{readable}.md").write_text(text)
    print(text)
    if panels:
        (folder / f"{figure}.svg").write_text(loss_against_tokens(panels, along, vocabulary))


def _remark(frame: pd.DataFrame, vocabulary: int | None) -> str:
    """What stands below a table of losses: that of a uniform guess, and how many are broken."""
    if vocabulary is None:
        return ""
    rows = frame.reindex(columns=["loss", "ancestor", "tokens"], fill_value=-1)  # members of a chain have no tokens
    worse = sum(
        is_broken(loss, vocabulary, ancestor, tokens) for loss, ancestor, tokens in rows.itertuples(index=False)
    )
    return f"\nLoss: nats per token; {uniform_guess(vocabulary)}{f', {worse:,} are worse: broken' * bool(worse)}.\n"


def compare_by_seed(path: Path, frame: pd.DataFrame, reference: str | None) -> None:
    """What the methods of a frame differ by from the reference."""
    text = markdown(differences(frame, reference).fillna(""))
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
