"""The checks of accelerators (`python -m tests.gpu`) run here, find what is wrong, and do without what is not installed."""

import importlib
import json
import os
import subprocess
import sys
import time

import pytest
import torch
import transformers

from colpipe.cost.devices import read_measurements
from colpipe.training import objectives
from tests.conftest import CHECKOUT
from tests.gpu import __main__ as program
from tests.gpu.finding import FAILED, NOT_RUN, PASSED, found, within
from tests.gpu.running import CHECKS, Check, run_all
from tests.gpu.tiny import World

MISSING = (
    "trl",
    "datasets",
    "lm_eval",
    "snakemake",
    "pydantic",
    "einops",
    "scipy",
    "pandas",
    "gguf",
    "rouge_score",
    "peft",
)


def on_cpu(folder) -> World:
    return World(torch.device("cpu"), folder, lambda: 1e6)


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=CHECKOUT, env=environment
    )  # fmt: skip


@pytest.mark.slow
def test_without_what_a_bare_machine_lacks(tmp_path):
    """Everything that is not torch's or transformers' is hidden: the checks run, and those that need more say so."""
    chosen = ("devices", "generation", "learngene", "memory", "speed")
    words = ["--device", "cpu", "--minutes", "60", "--hide", ",".join(MISSING), "--only", *chosen]
    done = python("-m", "tests.gpu", *words, "--output", str(tmp_path / "found.json"))
    assert not done.returncode, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    result = json.loads(last)
    assert result == json.loads((tmp_path / "found.json").read_text())
    states = {name: [entry["state"] for entry in entries] for name, entries in result["checks"].items()}
    assert list(states) == list(chosen)
    assert set(states["devices"]) == set(states["generation"]) == {PASSED}
    assert set(states["learngene"]) == set(states["memory"]) == {NOT_RUN}
    # Of what tells speed, a CPU runs the loss in chunks of several sizes; the rest says what it would do.
    assert set(states["speed"]) == {PASSED, NOT_RUN}
    assert sum("best_chunk" in entry["numbers"] for entry in result["checks"]["speed"]) == 1
    assert any(line.startswith("not run  learngene: LInit, fit, initialisers: needs einops") for line in lines)
    assert sum("needs an accelerator: would" in line for line in lines) >= 6
    assert result["measured"] is None and read_measurements(tmp_path / "found.json") is None


SETTINGS = """
import json
from tests.gpu import bare
{hide}
import transformers
with bare.filled_in():
    from colpipe.config.parts import Architecture, Runtime, Shape
    from colpipe.config.stages import Distill, Elastic, Fit, Recover, Sft
distill = Distill(data=["x"], objective="minillm", rollout={{"size": 8, "whiten": "update"}}, betas=[0.8, 0.9])
shape = Shape(layers=2, heads=4, hidden=32)
elastic = Elastic(smallest={{"layers": 1, "heads": 1, "hidden": 8}})
made = [distill, shape, Recover(steps=3), Sft(), elastic, Fit(), Runtime()]
sizes = Architecture(family="llama", positions=64).sizes(shape)
print(json.dumps([each.model_dump(mode="json") for each in made] + [sizes, distill.names, distill.rollout.size]))
"""


def test_what_stands_in_for_pydantic_has_its_values():
    ours, real = (python("-c", SETTINGS.format(hide=hide)) for hide in ('bare.hide(["pydantic"])', ""))
    assert not ours.returncode, ours.stderr
    assert json.loads(ours.stdout) == json.loads(real.stdout)


def test_a_check_that_dies_or_does_not_end_stops_no_other(tmp_path):
    end = time.monotonic() + 120
    died = list(run_all((Check("killed", "", "tests.unit.gpu"),), "cpu", tmp_path / "one", end))
    assert [finding.state for _, finding, _ in died] == [PASSED, FAILED]
    assert died[1][1].said == "status -9: about to go wrong"
    # The process from which all are forked is there by now: what is left is for what the check does.
    checks = (Check("endless", "", "tests.unit.gpu"), Check("devices", "what it is"))
    late = list(run_all(checks, "cpu", tmp_path / "two", time.monotonic() + 20))
    assert [(check.name, finding.state) for check, finding, _ in late] == [
        ("endless", PASSED),
        ("endless", NOT_RUN),
        ("devices", NOT_RUN),
    ]
    assert all(finding.said == "the time is over" for _, finding, _ in late[1:])


def test_a_wrong_gradient_is_found(tmp_path, monkeypatch):
    from tests.gpu import objectives as check

    def wrong(log_q, log_p, rows):
        loss, slope = objectives.reverse_kl(log_q, log_p, rows)
        return loss, slope * 1.001

    monkeypatch.setitem(check.OURS, "reverse_kl", lambda data: wrong)
    states = {finding.name: finding.state for finding in check.check(on_cpu(tmp_path))}
    assert [name for name, state in states.items() if state != PASSED] == ["reverse_kl, float32"]
    assert len(states) == 12


def test_waits_for_the_device_are_counted(tmp_path):
    """Each of the lines that make an update wait, in colpipe's own code; docs/accelerators.md lists them."""
    from tests.gpu import synchronisations

    places = synchronisations._count(on_cpu(tmp_path), "reverse_kl")
    updates = synchronisations.STEPS - synchronisations.FIRST
    ours = sum(count for place, count in places.items() if place.startswith("colpipe"))
    assert ours / updates == synchronisations.ALLOWED["reverse_kl"]
    # Each token, to see which rows go on; at the end, whether the logits of each model were finite.
    sampling = synchronisations._sampling(on_cpu(tmp_path))
    assert synchronisations._of_colpipe(sampling) == synchronisations.NEW + 2


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("/home/colpipe/.venv/lib/torch/nn/modules/module.py", "elsewhere"),  # a checkout called colpipe
        (f"{CHECKOUT}/colpipe/training/rollouts.py", "colpipe/training/rollouts.py:1"),
        (f"{CHECKOUT}/tests/gpu/tiny.py", "elsewhere"),
        (transformers.__file__, "transformers/__init__.py:1"),
    ],
)
def test_a_place_is_colpipes_by_where_the_package_lies(file, place):
    from tests.gpu import synchronisations

    calls = {"look": lambda: synchronisations._place()}
    exec(compile("found = look()", file, "exec"), calls)
    assert calls["found"] == place


def test_what_measures_speed_comes_to_its_end(tmp_path, monkeypatch):
    """At sizes that tell nothing, and nothing is compiled: else no machine without an accelerator would run it."""
    from tests.gpu import contenders, speed
    from tests.gpu.tiny import GPT2, LARGE, SMALL

    compiled = []
    monkeypatch.setitem(
        speed.PAIRS, "tiny", speed.PAIRS["small"]._replace(architecture=GPT2, student=SMALL, teacher=LARGE)
    )
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled.append((type(self).__name__, how)))
    monkeypatch.setattr(contenders, "ROWS", 1)
    monkeypatch.setattr(speed, "STEPS", 3)
    monkeypatch.setattr(speed, "SKIPPED", 1)
    world = on_cpu(tmp_path)
    found = [*speed._chunks(world, 16, (64,), range(7, 10)), *speed._sampling(world, "tiny", prompt=4, new=2)]
    found += speed._compiled(world, pair="tiny", length=8, batch=1)
    assert {finding.state for finding in found} == {PASSED}, [finding.line("speed") for finding in found]
    numbers = {finding.name: finding.numbers for finding in found}
    fastest = numbers["loss, V = 64, fastest chunks"]
    assert (fastest["best_chunk"], fastest["best_part"]) in {(2**n, 2**n) for n in range(7, 10)} | {(2**23, 2**19)}
    assert fastest["own_to_best"] >= 1
    ways = [name for name in numbers if name.startswith("torch.compile")]
    assert len(ways) == len(speed.COMPILED) and all("compile_seconds" in numbers[name] for name in ways)
    whole = ("GPT2Model", {"mode": None}), ("GPT2Model", {"mode": "reduce-overhead"})
    assert compiled == [("GPT2Block", {"mode": None})] * 5 + [whole[0]] * 2 + [whole[1]] * 2


def test_what_is_not_a_number_is_no_pass():
    assert within("x", {"a": float("nan")}, 1.0).state == FAILED
    assert within("x", {"a": 0.5}, 1.0).line("y").startswith("passed   y: x: a 5.0e-01")


def test_measurements_are_those_of_the_first_training_of_a_precision(tmp_path):
    entries = [
        found(True, name, "", flops_per_second=rate, precision=precision)._asdict()
        for name, rate, precision in (("one", 4e14, "bfloat16"), ("two", 5e14, "bfloat16"), ("three", 3e13, "float32"))
    ]
    device = found(True, "NVIDIA H200", "")._asdict()
    entries.append(found(True, "chunks", "", vocabulary=50257, best_chunk=2**25, best_part=2**24)._asdict())
    result = {"measured": program.measured({"devices": [device], "speed": entries})}
    assert result["measured"]["fastest_chunks"] == {50257: {"chunk": 2**25, "part": 2**24}}
    (tmp_path / "found.json").write_text(json.dumps(result))
    measured = read_measurements(tmp_path / "found.json")
    assert measured.device == "NVIDIA H200" and measured.rates == {"bfloat16": 4e14, "float32": 3e13}
    assert measured.trained == {"bfloat16": "one", "float32": "three"}


def test_every_check_is_there():
    for check in CHECKS:
        module = importlib.import_module(f"{check.package}.{check.name}")
        assert callable(module.check) and module.__doc__
