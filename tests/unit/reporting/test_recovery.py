"""Curves along recovery, and when one is as good as another in the end."""

import math

import numpy as np
import pytest

from colpipe.pipeline.plan import Plan
from colpipe.reporting.recovery import (
    Comparison,
    Stop,
    compare_with_random,
    levels,
    loss_by_size,
    recovery_curves,
    stops,
    tokens_until,
)
from colpipe.reporting.summary import summarise


def test_the_curves_of_every_desnet_are_those_of_its_longest_recovery(results):
    study, folder = results
    panels = recovery_curves(study, folder)
    assert list(panels) == ["upper", "lower"]
    assert panels["upper"] == {"nested": [(0, 6.0), (512, 5.5)], "rand": [(0, 8.0), (512, 5.5)]}


def test_a_desnet_with_budgets_of_its_own(study, results):
    loaded, folder = results
    loaded.desnets["lower"].budgets = [0]
    assert list(recovery_curves(loaded, folder)) == ["upper"]


def test_tokens_until_a_loss_are_where_the_line_meets_it():
    curve = [(0, 6.0), (100, 5.0), (200, 5.5), (300, 4.0)]
    places = np.linspace(0, 300, 300_001)
    losses = np.interp(places, *zip(*curve, strict=True))
    for target in (5.9, 5.0, 4.7, 4.0):
        first = places[np.argmax(losses <= target + 1e-9)]
        assert tokens_until(curve, target) == pytest.approx(first, abs=0.01)
    assert tokens_until(curve, 6.0) == tokens_until(curve, 7.0) == 0
    assert tokens_until(curve, 3.9) is None


def test_speed_ups_are_against_the_random_model(results):
    study, _ = results
    panels = {
        "upper": {"nested": [(0, 6.0), (400, 4.0)], "slow": [(0, 6.0), (400, 5.5)], "rand": [(0, 8.0), (400, 5.0)]},
        "lower": {"nested": [(0, 3.0), (400, 3.1)], "rand": [(0, 8.0), (400, 5.0)]},
        "alone": {"nested": [(0, 3.0), (400, 3.1)]},
    }
    found = compare_with_random(study, panels)
    assert [(entry.desnet, entry.method, entry.tokens, entry.baseline) for entry in found] == [
        ("upper", "nested", 200, 400),
        ("upper", "slow", None, 400),
        ("lower", "nested", 0, 400),
    ]
    assert [entry.speed_up for entry in found] == [2, None, math.inf]
    assert Comparison("d", "w", 1.0, 800, 400).speed_up == 0.5


def test_the_random_model_counts_as_it_is_published(results):
    study, _ = results
    panels = {"upper": {"nested": [(0, 6.0), (400, 4.0)], "rand": [(0, 8.0), (200, 5.0), (400, 5.5)]}}
    [best] = compare_with_random(study, panels)
    study.stages.recover.keep = "last"
    [last] = compare_with_random(study, panels)
    assert (best.target, best.baseline, last.target) == (5.0, 200, 5.5)


def test_where_recoveries_stop_is_what_their_manifests_say(results, stopping):
    study, folder = stopping
    found = stops(study, folder)
    assert found["desnets/llama/upper/nested/512"] == Stop(0.95, 5.6, 5.32, True, 5.5, 384, 1024)
    assert [path for path, stop in found.items() if not stop.reached] == ["desnets/scratch/lower/rand/512"]
    assert len(found) == 4
    marks = {"stop_at 0.95": 5.6, "the ancestor": 5.32}
    assert levels(study, found) == {"upper": marks, "lower": marks}
    study.stages.recover = study.stages.recover.model_copy(update={"stop_at": None})
    assert stops(study, folder) == {}


def test_levels_of_several_ancestors_have_their_names(stopping):
    study, folder = stopping
    found = stops(study, folder)
    study.ancestors["other"] = study.ancestors["llama"]
    found["desnets/other/upper/nested/512"] = Stop(0.95, 4.0, 3.8, True, 3.9, 10, 1024)
    assert levels(study, found)["upper"] == {
        "stop_at 0.95, llama": 5.6,  # and of the random one, which is measured against the first
        "the ancestor, llama": 5.32,
        "stop_at 0.95, other": 4.0,
        "the ancestor, other": 3.8,
    }
    loss = {"desnets/llama/upper/nested/512": Stop(5.6, 5.6, None, True, 5.5, 384, 1024)}
    assert levels(study, loss) == {"upper": {"stop_at 5.6": 5.6}}


def test_a_method_that_ended_where_it_should_is_not_asked_for_more(stopping):
    """The random one goes on to 5.0, below the target of 5.6 that ended the other's recovery: both are asked for that."""
    study, folder = stopping
    panels = {"upper": {"nested": [(0, 6.0), (200, 5.55)], "rand": [(0, 8.0), (400, 6.0), (800, 5.0)]}}
    [plain] = compare_with_random(study, panels)
    [ended] = compare_with_random(study, panels, stops(study, folder))
    assert (plain.target, plain.tokens, plain.baseline) == (5.0, None, 800)
    assert (ended.target, ended.baseline) == (5.6, pytest.approx(560))
    assert ended.tokens == pytest.approx(200 * 0.4 / 0.45)


def test_losses_by_size_are_those_of_the_chain_and_of_desnets_as_assembled(results):
    study, folder = results
    panels = loss_by_size(study, summarise(study, folder))
    models = list(Plan(study).models)
    assert list(panels) == ["stories"] and list(panels["stories"]) == ["chain", "nested"]
    expected = [
        (study.parameters(study.desnets[desnet].shape), 5.0 + models.index(f"desnets/llama/{desnet}/nested/0"))
        for desnet in ("lower", "upper")
    ]
    assert panels["stories"]["nested"] == expected
