"""A report by hand: the study is one as a user writes it."""

import json

from colpipe.config.loading import load_study
from tests.conftest import stage


def test_a_study_is_checked_and_planned(study, inputs, tmp_path, monkeypatch):
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    known = load_study(study)
    larger, smaller = (known.parameters(member.shape) for member in list(known.chain.values())[:2])
    between = (larger + smaller) // 2

    def report(**changes):
        settings = json.dumps({**study, **changes})
        return stage("report", "--output", tmp_path / "results/tiny", "--settings", settings, cwd=tmp_path, check=False)

    tasks = {name: {**task, "instructions": "nowhere"} for name, task in study["tasks"].items()}
    refused = report(tasks=tasks).stderr
    assert "--settings: tasks." in refused and "'nowhere' is not in instructions" in refused
    assert "Traceback" not in refused

    planned = report(desnets={"by-parameters": {"params": between}})  # planned, and then there are no scores to report
    assert "intervals.json: No such file" in planned.stderr and "Traceback" not in planned.stderr
