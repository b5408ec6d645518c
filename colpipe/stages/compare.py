"""Compare finished studies: one table and figure of held-out loss per DesNet, the mean over studies and their spread.

python -m colpipe.stages.compare results/initialisers-0 results/initialisers-1 --output docs/initialisers

The studies differ in their seed only, or they would not be one experiment.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from colpipe.errors import ColpipeError
from colpipe.reporting.compare import curves_of, losses, spread, wide
from colpipe.reporting.figures import loss_against_tokens
from colpipe.reporting.summary import markdown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m colpipe.stages.compare",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="results/<study> of finished studies")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="for losses.csv, table.md, curves.svg"
    )
    arguments = parser.parse_args()
    try:
        frame = spread(losses(arguments.results))
    except (ColpipeError, OSError) as error:
        sys.exit(f"compare: error: {error}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    frame.to_csv(arguments.output / "losses.csv", index=False, float_format="%.4f")
    table = markdown(wide(frame))
    (arguments.output / "table.md").write_text(table)
    if panels := curves_of(arguments.results, frame):
        (arguments.output / "curves.svg").write_text(loss_against_tokens(panels))
    with pd.option_context("display.width", 200):
        print(table)


if __name__ == "__main__":
    main()
