"""The rule table against workflow/rules/, the stages, and what the profiles ask for."""

import re
from importlib import import_module
from types import SimpleNamespace

import pytest
import yaml

from colpipe.pipeline import resources, snakefile
from colpipe.pipeline.resources import Resources, resources_of_jobs
from colpipe.pipeline.rules import ROWS, RULES
from colpipe.pipeline.snakefile import asked_resources, site_of
from tests.conftest import CHECKOUT

INCLUDED = re.findall(r'^include: "(.+)"$', (CHECKOUT / "Snakefile").read_text(), re.MULTILINE)
TEXTS = {
    name: text
    for path in [CHECKOUT / path for path in INCLUDED]
    for name, text in re.findall(r"^rule (\w+):\n((?:(?:    .*)?\n)+)", path.read_text(), re.MULTILINE)
    if name != "estimate"  # it runs no stage
}
PROFILES = {path.parent.name: path for path in (CHECKOUT / "workflow/profiles").glob("*/profile.v9+.yaml")}


def test_rules_are_those_of_the_table():
    assert len(RULES) == len(ROWS)
    assert set(TEXTS) == set(RULES)


@pytest.mark.parametrize("rule", ROWS, ids=lambda rule: rule.name)
def test_a_rule_is_written_as_its_row_says(rule):
    text = TEXTS[rule.name]
    output = re.search(
        r'output:\n\s+(?:page=report\(\n\s+)?"([^"]+)/(?:manifest\.json|README\.md|report\.html)"', text
    )[1]
    assert output == rule.output.replace("{results}", "<results>").replace("{resources}", "resources")
    assert f'**PLAN.params("{rule.name}"' in text
    runs = "LAUNCH" if rule.kind in ("accelerator", "data-parallel") else "RUN"
    assert re.search(r"shell:\n        (\w+)\n", text)[1] == runs
    assert (f'**resources_of("{rule.name}")' in text) == (rule.kind != "fetch")
    assert f'inputs_of("{rule.name}")' in text
    assert ("localrule: True" in text) == (rule.kind == "fetch")
    assert (f'**PLAN.allowed("{rule.name}")' in text) == (rule.allowed is not None)
    import_module(rule.module)


def test_only_rules_have_stages():
    modules = {path.stem for path in (CHECKOUT / "colpipe/stages").glob("[a-z]*.py")}
    assert modules == {rule.stage or rule.name for rule in ROWS}


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_profiles_name_rules_of_the_table(name):
    profile = yaml.safe_load(PROFILES[name].read_text())
    remote = {rule.name for rule in ROWS if rule.kind != "fetch"}
    assert set(profile.get("set-resources", {})) <= remote


@pytest.mark.parametrize("name", ["slurm-gpu", "slurm-npu"])
@pytest.mark.parametrize("rule", [rule for rule in ROWS if rule.kind != "fetch"], ids=lambda rule: rule.name)
def test_what_slurm_is_asked_for(name, rule, monkeypatch):
    """Light rules go to nodes without accelerators, others ask for theirs; the profiles name no rule, so new ones do too."""
    profile = yaml.safe_load(PROFILES[name].read_text())
    raw = {resource: SimpleNamespace(raw=text) for resource, text in profile["default-resources"].items()}
    site = site_of(SimpleNamespace(resource_settings=SimpleNamespace(default_resources=raw)))
    asked = Resources(accelerators=0 if rule.kind == "light" else 2, memory_mb=1, minutes=1)
    monkeypatch.setattr(resources, "resources_of_job", lambda *_: asked)
    job = {
        key: value(None) if callable(value) else value
        for key, value in resources_of_jobs(None, site)(rule.name).items()
    }
    partition = job.pop("slurm_partition", profile["default-resources"]["slurm_partition"].strip("'"))
    if rule.kind == "light":
        assert (partition, job["gpu"]) == ("cpu", 0) and "gres" not in job
    elif name == "slurm-gpu":
        assert (partition, job["gpu"]) == ("gpu", 2) and "gres" not in job
    else:
        assert (partition, job["gpu"], job["gres"]) == ("npu", 0, "npu:ascend910b:2")


@pytest.mark.parametrize(
    ("workflow", "devices", "device", "expected"),
    [
        ({}, [], "auto", []),
        ({}, ["cuda"], "auto", ["gpu"]),
        ({}, ["cuda"], "cpu", []),
        ({"resources": ["_cores", "_nodes", "mem_mb"]}, [], "cpu", ["gpu", "mem_mb", "runtime"]),
        ({"nodes": 20}, [], "cpu", ["gpu", "mem_mb", "runtime"]),
        ({"default": {"slurm_partition": "gpu"}}, [], "cpu", ["gpu", "mem_mb", "runtime"]),
        ({"remote": True}, [], "cpu", ["gpu", "mem_mb", "runtime"]),
    ],
)
def test_jobs_say_what_is_asked_for(monkeypatch, workflow, devices, device, expected):
    monkeypatch.setattr(snakefile, "present", lambda kind: kind in devices)
    given = SimpleNamespace(
        remote_exec=workflow.get("remote", False),
        global_resources=dict.fromkeys(workflow.get("resources", ["_cores", "_nodes"])),
        resource_settings=SimpleNamespace(nodes=workflow.get("nodes"), default_resources=workflow.get("default")),
    )
    asked = asked_resources(given, device)
    assert list(asked) == expected
    said = resources_of_jobs(None, {}, asked)("distill")
    assert said.keys() == {"gpu", *expected} and callable(said["gpu"]) == ("gpu" in expected)
