"""Studies that differ in their seed, as one table of members and DesNets."""

import json
import math

import pandas as pd
import pytest

from colpipe.errors import ColpipeError
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
from colpipe.reporting.markdown import markdown
from colpipe.tools.compare import compare

LOSSES = {"minillm": (3.0, 3.2), "jsd": (2.0, 2.4)}


@pytest.fixture
def results(tmp_path):
    """Two seeds: two chains of one member, a DesNet from one of them."""
    for seed in (0, 1):
        rows = [
            {"ancestor": ancestor, "desnet": "small", "params": 10, "init": "distilled", "value": values[seed]}
            for ancestor, values in LOSSES.items()
        ]
        rows.append({"ancestor": "jsd", "desnet": "2x8", "params": 9, "init": "nested", "tokens": 0, "value": 5 + seed})
        folder = tmp_path / f"study-{seed}"
        for ancestor, values in LOSSES.items():
            member = folder / "chain" / ancestor / "small"
            member.mkdir(parents=True)
            (member / "run.json").write_text(json.dumps({"seconds": 10 + 2 * seed}))
            curve = [{"step": 0, "split": "validation", "loss": 1, "cross_entropy": 9.0, "rouge_l": 1.0}]
            curve += [{"step": 4, "split": "validation", "loss": 1, "cross_entropy": values[seed], "rouge_l": 7 + seed}]
            (member / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in curve))
        frame = pd.DataFrame(rows).assign(task="wiki", metric="loss", seed=seed, alpha=None)
        frame.to_csv(folder / "summary.csv", index=False)
    return [tmp_path / "study-0", tmp_path / "study-1"]


def test_desnets(results):
    frame = spread(losses(results))
    [row] = wide(frame).to_dict("records")
    assert row == {"ancestor": "jsd", "init": "nested", "2x8, 0": "**5.500 ± 0.707**"}


def test_recoveries_that_do_not_end_together_have_a_mean_as_far_as_both_go(results):
    for seed, folder in enumerate(results):
        path = folder / "desnets/jsd/2x8/nested/1k"
        path.mkdir(parents=True)
        points = [(0, 6.0 + seed), (100, 5.0 + seed), (200, 4.0)][: 3 - seed]  # the second seed was good enough at 100
        records = [{"split": "validation", "tokens": tokens, "loss": loss} for tokens, loss in points]
        (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    frame = pd.DataFrame([{"ancestor": "jsd", "desnet": "2x8", "init": "nested", "tokens": 1000}])
    assert curves_of(results, frame) == {"2x8": {"nested, jsd": [(0, 6.5), (100, 5.5)]}}


def test_every_score_has_its_spread_over_seeds(results):
    frame = scores(summaries(results))
    [row] = frame[frame.desnet == "2x8"].to_dict("records")
    assert (row["task"], row["metric"], row["value"], row["seeds"]) == ("wiki", "loss", 5.5, 2)
    assert row["deviation"] == pytest.approx(0.5**0.5)


def test_tables_of_the_paper_over_seeds(results):
    for seed, folder in enumerate(results):
        row = {"ancestor": "", "model": "X", "init": "rand", "tokens": "1k", "task": "boolq", "metric": "rouge_l"}
        row |= {"paper": 50.0, "ours": 40.0 + 2 * seed, "seed": seed, "made_of": "desnets/x"}
        for name, rows in (("table1", row), ("figure4", {"step": 1, "seed": seed}), ("table2", row)):
            if name == "table2" and seed:
                continue  # not all have it
            (folder / "paper" / name).mkdir(parents=True)
            pd.DataFrame([rows]).to_csv(folder / "paper" / name / f"{name}.csv", index=False)
    found = paper_tables(results)
    assert set(found) == {"table1"}
    row = found["table1"].iloc[0]
    assert (row.ours, row.seeds, row.difference, round(row.deviation, 3)) == (41.0, 2, -9.0, 1.414)


def test_members_of_several_chains(results):
    frame = chain_frame(results, spread(losses(results)))
    table = chain_table(frame).to_dict("records")
    assert table[0] == {
        "chain": "minillm",
        "small, loss": "3.100 ± 0.141",
        "small, Rouge-L": "7.5",
        "small, seconds": "11",
    }
    assert table[1]["small, loss"] == "**2.200 ± 0.283**"
    assert chain_curves(results, frame) == {
        "small": {"minillm": [(0, 9.0), (4, pytest.approx(3.1))], "jsd": [(0, 9.0), (4, pytest.approx(2.2))]}
    }


def test_a_member_that_only_some_chains_have(results):
    add(results, {"ancestor": "jsd", "desnet": "tiny", "params": 5, "init": "distilled", "value": 4.0})
    for folder in results:
        member = folder / "chain/jsd/tiny"
        member.mkdir()
        (member / "run.json").write_text(json.dumps({"seconds": 3}))
        (member / "metrics.jsonl").write_text("")
    table = chain_table(chain_frame(results, spread(losses(results)))).set_index("chain")
    assert (table["tiny, loss"]["minillm"], table["tiny, loss"]["jsd"]) == ("", "**4.000 ± 0.000**")
    assert table["small, loss"]["minillm"] == "3.100 ± 0.141"


def test_losses_along_training_are_those_of_the_first_some_and_the_last_evaluation():
    curve = [(10 * place, 5.0 - place / 10) for place in range(11)]
    table = along_table({"small": {"rank": curve, "fit": [(step, loss - 0.5) for step, loss in curve[:-1]]}})
    assert table.columns.tolist() == ["member", "chain", *(f"{step} steps" for step in (0, 10, 20, 40, 80, 90, 100))]
    rank, fit = table.to_dict("records")
    assert (rank["0 steps"], fit["0 steps"], rank["100 steps"]) == ("5.000", "**4.500**", "**4.000**")
    assert (fit["100 steps"], fit["90 steps"], rank["90 steps"]) == ("", "**3.600**", "")


def add(results, *rows: dict):
    """More losses on wiki, in every study."""
    for folder in results:
        frame = pd.read_csv(folder / "summary.csv")
        more = pd.DataFrame(rows).assign(task="wiki", metric="loss", seed=frame.seed[0])
        pd.concat([frame, more]).to_csv(folder / "summary.csv", index=False)


def test_many_sizes_of_which_none_is_recovered(results, tmp_path):
    """All of them are in the table."""
    shape = {"ancestor": "jsd", "init": "fit", "tokens": 0, "value": 4.0}
    add(results, *({**shape, "desnet": f"d{number}", "params": 100 + number} for number in range(4)))
    for folder in results:
        frame = pd.read_csv(folder / "summary.csv")
        frame[~(frame.tokens > 0)].to_csv(folder / "summary.csv", index=False)
    compare(results, tmp_path / "out", None)
    table = (tmp_path / "out/table.md").read_text()
    assert all(f"d{number}, 0" in table for number in range(4))
    assert not (tmp_path / "out/curves.svg").exists()


GUESS = {"init": "uniform", "value": math.log(512)}


def test_a_uniform_guess_is_no_model(results):
    assert vocabulary_of(results) is None
    before = losses(results)
    add(results, GUESS)
    assert vocabulary_of(results) == 512
    pd.testing.assert_frame_equal(losses(results), before)


def test_a_fetched_ancestor_whose_size_no_study_says(results):
    sizes = ({"ancestor": "jsd", "desnet": f"d{n}", "params": n, "init": "nested", "tokens": 0} for n in (2, 3, 4))
    add(results, {"desnet": "llama", "init": "as it is", "value": 2.5}, *({**each, "value": 4.0} for each in sizes))
    frame = spread(losses(results))
    [row] = frame[frame.desnet == "llama"].to_dict("records")
    assert (row["loss"], row["seeds"], row["tokens"], pd.isna(row["params"])) == (2.5, 2, -1, True)
    assert frame[frame.desnet == "d2"].params.tolist() == [2]
    [row] = wide(frame).to_dict("records")
    assert row["init"] == "nested" and row["d2, 0"] == "**4.000 ± 0.000**"
    table, curves = by_size(losses(results))
    assert curves == {"jsd nested": [(2, 4.0), (3, 4.0), (4, 4.0), (9, 5.0)]}
    assert "| 9 | 2x8 | 5.0 |" in markdown(table)


def test_studies_of_the_same_seed_are_refused(results):
    with pytest.raises(ColpipeError, match="have the seed 0; compare other seeds"):
        losses([results[0], results[0]])
    with pytest.raises(ColpipeError, match=r"summary.csv: not found; finish the study first"):
        losses([results[0].parent])


def test_desnets_by_size():
    columns = {"ancestor": "a", "params": 10, "init": "cut", "tokens": 0, "loss": 5.0, "seed": 3}
    rows = [{**columns, "desnet": f"d{n}", "params": 40 - n, "loss": n / 4} for n in range(4)]
    rows += [{**columns, "desnet": "d0", "ancestor": "", "init": "rand"}, {**columns, "desnet": "d0", "tokens": 7}]
    rows.append({**columns, "desnet": "d1", "params": 39, "loss": 9.0, "seed": 1})  # a seed with fewer
    table, curves = by_size(pd.DataFrame(rows))
    assert curves == {"a cut": [(37, 0.75), (38, 0.5), (39, 0.25), (40, 0.0)]}
    assert table.to_dict("records")[0] == {"params": 37, "desnet": "d3", "a cut": 0.75}


def test_few_desnets_make_no_curve(results):
    assert by_size(losses(results))[1] == {}


def test_differences_are_taken_seed_by_seed():
    rows = [("a", 0, 5.0), ("a", 1, 4.0), ("b", 0, 5.1), ("b", 1, 4.3)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "loss"]).assign(model="small")
    assert differences(frame).to_dict("records") == [
        {"method": "a", "small": "+0.000 ± 0.000"},
        {"method": "b", "small": "+0.200 ± 0.141"},
    ]
    assert differences(frame, "b").small.tolist() == ["-0.200 ± 0.141", "+0.000 ± 0.000"]
    with pytest.raises(ColpipeError, match=r"--reference 'c': not among 'a', 'b'"):
        differences(frame, "c")


def test_models_that_the_reference_lacks_have_no_difference():
    rows = [("a", "small", 5.0), ("b", "small", 5.1), ("b", "large", 4.0)]
    frame = pd.DataFrame(rows, columns=["method", "model", "loss"]).assign(seed=0)
    assert list(differences(frame).columns) == ["method", "small"]
