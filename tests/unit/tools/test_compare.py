"""The files that a comparison of studies writes."""

import math

import pandas as pd

from colpipe.tools.compare import compare


def test_a_fetched_ancestor_and_random_models_are_compared_like_others(tmp_path):
    """Random models at 0 tokens lie a little above ln(vocabulary): they are not broken, what has learnt and is worse is."""
    built = {"desnet": "2x8", "params": 9}
    for seed in (0, 1):
        rows = [
            {"desnet": "llama", "init": "as it is", "value": 2.5},
            {**built, "init": "rand", "tokens": 0, "value": 6.3},
            {**built, "init": "rand", "tokens": 512, "value": 6.3},
            {**built, "ancestor": "llama", "init": "nested", "tokens": 0, "value": 6.3},
            {**built, "ancestor": "llama", "init": "nested", "tokens": 512, "value": 5.0},
            {"init": "uniform", "value": math.log(512)},
        ]
        (tmp_path / f"study-{seed}").mkdir()
        frame = pd.DataFrame(rows).assign(task="wiki", metric="loss", alpha=None, seed=seed)
        frame.to_csv(tmp_path / f"study-{seed}" / "summary.csv", index=False)
    compare([tmp_path / "study-0", tmp_path / "study-1"], tmp_path / "out", None)
    found = pd.read_csv(tmp_path / "out/losses.csv", keep_default_na=False)
    assert found.params.tolist() == ["", "9", "9", "9", "9"] and found.seeds.tolist() == [2] * 5
    table = (tmp_path / "out/table.md").read_text().splitlines()
    assert table[0] == "| ancestor | init | 2x8, 0 | 2x8, 512 |" and len(table) == 6
    assert table[-1] == "Loss: nats per token; a uniform guess has 6.24 (ln 512), 2 are worse: broken."
