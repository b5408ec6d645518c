"""What benchmarks say of a measure: ratios, goals, and the page of them."""

import json
import math

from tests.benchmarks.__main__ import page_of
from tests.benchmarks.measuring import Line, report, told


def test_a_goal_is_of_the_ratio_where_something_is_beside_it():
    line = Line("a loss", "s", 1.5, "trl", 3.0, 0.5)
    assert told(line) == "a loss: 1.50 s; trl 3.00 s, ratio 0.50; ≤ 0.5, met"
    assert told(line._replace(ours=1.6)).endswith("ratio 0.53; ≤ 0.5, missed")


def test_a_goal_is_of_the_value_where_nothing_is_beside_it():
    assert told(Line("memory", "MB", 1234.5, limit=1500)) == "memory: 1,234 MB; ≤ 1,500 MB, met"
    assert told(Line("other bytes", "", 1, limit=0)) == "other bytes: 1; ≤ 0, missed"
    assert told(Line("a plan", "s", 0.00123)) == "a plan: 0.0012 s"


def test_nothing_beside_it_is_not_a_ratio_of_one():
    line = Line("memory", "MB", 5, "without", 0, 1.2)
    assert line.measure == math.inf and line.goal == "≤ 1.2, missed"


def test_the_page_has_a_row_for_each_line(capsys):
    report([Line("a loss", "s", 1.5, "trl", 3.0, 0.5), Line("memory", "MB", 120)], steps=3)
    *lines, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert lines == ["a loss: 1.50 s; trl 3.00 s, ratio 0.50; ≤ 0.5, met", "memory: 120 MB"] and found["steps"] == 3
    page = page_of({"distill": found})
    assert page.endswith(
        "| `distill` | a loss | 1.50 s | trl: 3.00 s | 0.50 | ≤ 0.5, met |\n|  | memory | 120 MB |  |  |  |\n"
    )
    assert f"on {found['machine']['cores']} cores" in page
