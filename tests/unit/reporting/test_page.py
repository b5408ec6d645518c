"""The page as text; tests/workflow/test_page.py opens it in a browser."""

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from colpipe.pipeline.plan import Plan
from colpipe.reporting import tables
from colpipe.reporting.cost import estimate_and_fact
from colpipe.reporting.page import curves, format_duration, page, read_paper_table
from colpipe.reporting.recovery import Comparison
from colpipe.reporting.summary import summarise


class Outline(HTMLParser):
    """What stands where: open elements must be closed, and ids must be there once."""

    VOID = {"meta", "link", "br", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.fetched, self.cells, self.links = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.fetched += [values[name] for name in ("src", "srcset", "data", "action", "poster") if name in values]
        self.fetched += [values["href"]] if tag == "link" else []
        self.links += [values["href"]] if tag == "a" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def outline(text: str) -> Outline:
    parser = Outline()
    parser.feed(text)
    assert parser.open == [] and len(set(parser.ids)) == len(parser.ids)
    return parser


def whole_page(study, folder) -> str:
    return page(study, folder, summarise(study, folder), estimate_and_fact(study, folder))


def test_the_page_is_whole_asks_for_nothing_and_is_the_same_each_time(results):
    study, folder = results
    summary = summarise(study, folder)
    cost = estimate_and_fact(study, folder)
    text = page(study, folder, summary, cost)
    assert text == page(study, folder, summary, cost)
    found = outline(text)
    assert all(address.startswith("data:") for address in found.fetched) and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert {"asked", "models", "size", "recovery", "scores", "cost", "failures", "workflow", "provenance"} <= set(
        found.ids
    )
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert "20,112" in found.cells  # parameters of a member
    assert "None: the logs tell of no attempt" in text and 'id="paper"' not in text


def test_names_of_a_study_are_text_and_no_markup(results):
    study, folder = results
    summary = summarise(study, folder)
    summary["desnet"] = summary.desnet.replace("upper", "<script>alert(1)</script>")
    assert "<script>alert" not in page(study, folder, summary, estimate_and_fact(study, folder))


def test_costs_have_their_place(results):
    study, folder = results
    jobs = [folder / "chain/llama/medium", folder / "chain/llama/small"]
    for path, seconds in zip(jobs, (2.0, 5000.0), strict=True):
        path.mkdir(parents=True, exist_ok=True)
        run = {"flops": 3_000_000_000, "tokens": 10, "seconds": seconds, "device_seconds": seconds, "attempts": 1}
        (path / "run.json").write_text(json.dumps({**run, "peak_memory_mb": 77, "peak_device_memory_mb": 0}))
    text = whole_page(study, folder)
    row = re.search(r"<tr><td>distill</td>.*?</tr>", text)[0]
    values = re.findall(r'data-value="([^"]+)"', row)
    assert values[0] == "2.0" and {"6.0", "20.0", "5002.0", "5000.0", "77.0"} <= set(values)
    assert "2 jobs took 1 h 23 min of work" in text


def test_curves_without_what_sets_their_scale():
    panels = {"a": {"nested": [(0, 3.0)], "rand": [(0, 8.0)]}, "b": {"rand": [(0, 8.0)]}}
    found = curves(panels, "tokens", ["rand"])
    assert (len(found["drawings"]), len(found["closer"])) == (2, 1)
    assert 'data-method="0"' in found["closer"][0] and "rand" not in found["closer"][0]
    assert curves({"b": panels["b"]}, "tokens", ["rand"])["closer"] == []
    assert curves({"a": {"nested": [(0, 3.0)]}}, "tokens", ["rand"])["closer"] == []
    assert curves({}, "tokens") is None


def test_failures_are_shown(results):
    study, folder = results
    log = folder / "work/sft/llama/events.jsonl"
    log.parent.mkdir(parents=True)
    happened = [("2026-01-02 03:04:05", "failed", "error: disk <full>"), ("2026-01-02 03:05:05", "done", "done in 2 s")]
    records = [dict(zip(("when", "kind", "text"), each, strict=True)) for each in happened]
    log.write_text("".join("\n" + json.dumps(record) for record in records))
    text = whole_page(study, folder)
    assert "disk &lt;full&gt;" in text and "1 job needed more than one attempt" in text


def test_exhibits_are_text_table_and_picture(tmp_path):
    folder = tmp_path / "paper/table3"
    folder.mkdir(parents=True)
    (folder / "table3.md").write_text(
        "# Table 3: a title\n\n| a | b |\n| --- | --- |\n| 1 | **<b>2** |\n\n![no](http://x/y.png)\n"
    )
    (folder / "table3.svg").write_text("<svg/>")
    found = read_paper_table(folder)
    assert found["title"] == "Table 3: a title" and found["picture"] == "PHN2Zy8+"
    assert "<td><strong>&lt;b&gt;2</strong></td>" in found["text"] and "<img" not in found["text"]


def test_scores_have_their_intervals_and_guessing_beside_them(results):
    study, folder = results
    task = tables.scores(study, summarise(study, folder))["boolq"]
    place = task.columns.index("accuracy")
    rows = {tuple(cell.shown for cell in row[:3]): row for row in task.rows}
    assert rows["medium", "distilled", ""][place] == tables.Cell("52.0", 52.0, "51.0 to 53.0")
    assert rows["guessing", "majority", ""][place].value == 50
    assert task.numbers()[place] and not task.numbers()[0]
    assert len(task.rows) == 12 + 2


def test_what_models_keep_has_a_table_and_a_column_in_those_of_tasks(compared):
    study, folder = compared
    found = tables.scores(study, summarise(study, folder))
    assert list(found) == ["stories", "all tasks", "boolq", "piqa", "words", "guessed"]
    assert [name for name in found["piqa"].columns[3:-1]] == [
        "likelihood accuracy", "95 % interval", "likelihood accuracy, by length", "bits per byte of answers",
        "less the ancestor's", "kept",
    ]  # fmt: skip
    assert found["words"].columns[3] == "last words" and "kept" not in found["guessed"].columns
    bits, difference, kept = (found["piqa"].columns.index(name) for name in found["piqa"].columns[-4:-1])
    row = next(row for row in found["piqa"].rows if row[0].shown == "large")
    assert (row[bits].shown, row[difference].shown, row[kept].shown) == ("1.125", "-2.5", "91.7")
    assert found["all tasks"].columns[3:5] == ["kept", "95 % interval"]
    text = whole_page(study, folder)
    outline(text)
    assert "<h3>all tasks</h3>" in text and "so in summary.csv only: guessed." in text


def test_a_loss_above_that_of_a_uniform_guess_is_called_broken(results):
    study, folder = results
    table = tables.scores(study, summarise(study, folder))["stories"]
    rows = {row[0].shown: row[3] for row in table.rows if row[1].shown == "distilled" or row[0].shown == "guessing"}
    assert rows["guessing"] == tables.Cell("6.238", rows["guessing"].value)
    assert rows["small"].note.endswith(", broken") and rows["small"].value > 6.24
    random = {row[2].shown: row[3] for row in table.rows if row[0].shown == "upper" and row[1].shown == "rand"}
    assert min(cell.value for cell in random.values()) > 6.24
    assert {tokens: cell.note.endswith(", broken") for tokens, cell in random.items()} == {"0": False, "512": True}
    text = whole_page(study, folder)
    assert "a uniform guess has 6.24 (ln 512), and a\nmodel that is worse is broken, unless it is random" in text
    assert "Broken, worse than a uniform guess: " in text


def test_ways_that_need_no_tokens_sort_first_and_those_that_never_arrive_last():
    found = [
        Comparison("d", "never", 5, None, 100),
        Comparison("d", "soon", 5, 50, 100),
        Comparison("d", "at once", 5, 0, 100),
    ]
    rows = sorted(tables.comparison_table(found).rows, key=lambda row: row[4].value)
    assert [row[1].shown for row in rows] == ["at once", "soon", "never"]
    assert [row[5].shown for row in rows] == ["needs none", "2.0 ×", "less than 1 ×"]


@pytest.mark.parametrize("keep", ["loss", "last"])
def test_the_page_says_which_state_recovery_publishes(results, keep):
    study, folder = results
    study.stages.recover.keep = keep
    text = whole_page(study, folder)
    assert ("Lower is better, and the lowest state of each is published. Point at" in text) == (keep == "loss")
    assert ", trained for a few tokens more, and scored" in text
    study.budgets = [0]
    assert "neighbours in the chain and scored" in whole_page(study, folder)


def test_recoveries_that_may_end_early_have_a_table_and_lines(stopping):
    study, folder = stopping
    text = whole_page(study, folder)
    outline(text)
    assert text.count('class="level"') == 2 * 4  # of two DesNets, and closer
    assert "<title>the ancestor: 5.320</title>" in text and "<title>stop_at 0.95: 5.600</title>" in text
    rows = re.findall(r"<tr><td>(\w+)</td><td>(\w+)</td>(.*?)</tr>", text[text.index("<h3>Tokens to recover") :])
    values = {(desnet, init): re.findall(r'data-value="([^"]+)"', rest) for desnet, init, rest in rows[:4]}
    assert values["upper", "nested"] == ["512.0", "5.6", "384.0", "0.375", "5.5"]
    assert values["lower", "rand"] == ["512.0", "5.6", "Infinity", "1.0", "5.8"]
    assert "not within 1,024" in text and "until its validation loss was at most the ancestor&#39;s over 0.95," in text
    assert "3 of 4 got there, not within their budgets: lower rand 512." in text
    assert "which ends where it is good enough (stop_at)" in text


def test_a_study_that_stops_nothing_early_says_nothing_of_it(results):
    text = whole_page(*results)
    assert "stop_at" not in text and 'class="level"' not in text and "Tokens to recover" not in text


def test_what_never_arrives_is_a_number_that_scripts_read(results):
    study, folder = results
    metrics = folder / "desnets/llama/upper/nested/512/metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("5.5}", "5.75}"))
    text = whole_page(study, folder)
    assert 'data-value="Infinity">not within its budget' in text and 'data-value="inf"' not in text


def test_only_pairs_that_share_anything_leak(tmp_path):
    assert tables.leakage(tmp_path) is None
    (tmp_path / "leakage").mkdir()
    frame = pd.DataFrame({"evaluated": ["a", "b"], "rows": [8, 8], "exact": [0, 0], "overlapping": [2, 0]})
    frame.to_csv(tmp_path / "leakage/leakage.csv", index=False)
    table = tables.leakage(tmp_path)
    assert [[cell.shown for cell in row] for row in table.rows] == [["a", "8", "0", "2", "25.0 %"]]


@pytest.mark.parametrize("seconds, words", [(45.2, "45 s"), (89, "89 s"), (720, "12 min"), (11_100, "3 h 5 min")])
def test_durations(seconds, words):
    assert format_duration(seconds) == words


def test_the_ancestor_is_drawn_by_what_was_fetched(results):
    study, folder = results
    (folder / "sft/llama").mkdir(parents=True)
    (folder / "sft/llama/config.json").write_text(json.dumps({"num_hidden_layers": 2, "hidden_size": 32}))
    (folder / "sft/llama/manifest.json").write_text(json.dumps({"parameters": 37_792}))
    text = whole_page(study, folder)
    assert "llama: 2 layers × 32 channels, 37,792 parameters" in text


def test_quality_against_size_comes_first_in_the_colours_of_the_page(results):
    study, folder = results
    text = whole_page(study, folder)
    section = re.search(r"<main>\s*<section id=\"family\">.*?</section>", text, re.DOTALL)[0]
    assert "Held-out loss on stories, nats per token" in section and 'stroke="var(--method-0)"' in section
    assert 'href="#family"' in text and section.count('class="line"') == 2
    for method in ("nested, 0 tokens", "nested, 512 tokens", "rand, 0 tokens", "rand, 512 tokens"):
        assert method in section  # drawn, or too far off for that


def test_what_models_write_is_text_and_a_study_that_continues_nothing_has_no_such_section(results):
    study, folder = results
    assert 'id="written"' not in whole_page(study, folder) and "#written" not in whole_page(study, folder)
    for path in Plan(study).models:
        texts = [{"prompt": "It <i>is", "greedy": " a <script>", "sampled": " b & c\nd"}]
        (folder / "scores" / path / "continuations.json").write_text(json.dumps(texts))
    text = whole_page(study, folder)
    found = outline(text)
    assert "written" in found.ids and {"a <script>", "b & c ⏎ d"} <= set(found.cells)
    assert "<b>It &lt;i&gt;is …</b>" in text and "a &lt;script&gt;" in text
    assert "continue each beginning by up to 48 tokens, as plain text" in " ".join(text.split())
