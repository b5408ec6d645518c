"""Tables as text."""

import pandas as pd


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a markdown table; text as it is."""
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
