"""The drawing of a graph: which lines stay, who stands where. networkx is the reference."""

import random
import re

import networkx
import pytest

from colpipe.reporting.flow import arranged, layers_of, reduced, workflow

CHAIN = {("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")}


@pytest.mark.parametrize("seed", range(20))
def test_the_reduction_is_that_of_networkx(seed):
    chance, order = random.Random(seed), list("abcdefghij")
    edges = {(a, b) for n, a in enumerate(order) for b in order[n + 1 :] if chance.random() < 0.35}
    assert reduced(order, edges) == set(networkx.transitive_reduction(networkx.DiGraph(edges)).edges)


@pytest.mark.parametrize("seed", range(20))
def test_every_line_leads_down(seed):
    chance, order = random.Random(seed), list("abcdefghij")
    edges = {(a, b) for n, a in enumerate(order) for b in order[n + 1 :] if chance.random() < 0.25}
    depths = layers_of(order, edges)
    assert min(depths.values()) >= 0 and all(depths[a] < depths[b] for a, b in edges)
    rows = arranged(order, edges, depths)
    assert sorted(place for row in rows for place in row if isinstance(place, str)) == order
    passing = [place for row in rows for place in row if not isinstance(place, str)]
    assert len(passing) == sum(depths[b] - depths[a] - 1 for a, b in edges)


def test_a_source_stands_just_before_its_reader():
    edges = {("a", "b"), ("b", "c"), ("c", "e"), ("d", "e")}
    assert layers_of("abcde", edges) == {"a": 0, "b": 1, "c": 2, "d": 2, "e": 3}


def test_lines_cross_less_after_arranging():
    edges = {("a", "d"), ("b", "c")}
    depths = layers_of("abcd", edges)
    upper, lower = arranged("abcd", edges, depths)
    assert [lower.index(dict(edges)[node]) for node in upper] == [0, 1]


def test_boxes_counts_and_lines():
    counts = {"fetch": 2, "signal": 1, "distill": 1_000}
    svg = workflow(counts, {("fetch", "distill"), ("signal", "distill"), ("distill", "signal"), ("distill", "distill")})
    assert svg.count("<rect") == 3 and "1,000 jobs, one after another" in svg and ">1 job<" in svg
    assert len(re.findall(r'class="uses"', svg)) == 2 and svg.count('class="uses back"') == 1


def test_equal_graphs_are_equal_drawings():
    assert workflow(dict.fromkeys("abcd", 1), CHAIN) == workflow(dict.fromkeys("abcd", 1), set(sorted(CHAIN)))
    assert workflow(dict.fromkeys("abcd", 1), CHAIN).count('class="uses"') == 3
