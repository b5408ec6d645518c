"""Curves in experiment trackers: those of the metrics, gone on with after a kill, and nothing else changed by them."""

import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from colpipe.config.parts import Runtime
from colpipe.config.stages import Training
from colpipe.config.trackers import require_trackers
from colpipe.errors import ColpipeError
from colpipe.hf.models import load_model
from colpipe.jobs.job import Job, JobSpec
from colpipe.training.trainer import train
from tests.conftest import SECRET, Killed, kill, make_gpt2, stage
from tests.unit.training.test_keep_best import ROWS

needs_tensorboard = pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="tensorboard is missing")
SETTINGS = Training(steps=8, batch_size=4, max_length=8, learning_rate=1e-2, evaluations=2)


@pytest.fixture
def run(tmp_path):
    """Trains a tiny model in a job `tiny/chain/small`, until it is killed after a step; gives its weights and its job."""
    make_gpt2(tmp_path / "model", 2, 2, 8, seed=3)

    def run(place: str, *trackers: str, after: int | None = None, save_minutes: float = 0) -> tuple[torch.Tensor, Job]:
        home = tmp_path / place / "results/tiny"
        runtime = Runtime(device="cpu", report_to=trackers, save_minutes=save_minutes)
        spec = JobSpec("recover", home / "chain/small", home / "work/chain/small", SETTINGS, runtime, {}, 0)
        with Job(spec) as job:
            kill(job, after)
            model = train(job, load_model(tmp_path / "model"), SETTINGS, ROWS, validation=ROWS[:4])
            job.staging.joinpath("model.txt").write_text("trained")
            job.publish()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), job

    return run


def recorded(job: Job) -> dict[str, dict[str, list]]:
    """metrics.jsonl of a published result: split → name → [(step, value)]."""
    found: dict = {}
    for line in (job.output / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name not in ("split", "step"):
                found.setdefault(record["split"], {}).setdefault(name, []).append((record.get("step"), value))
    return found


def curves(folder) -> dict[str, list]:
    """What TensorBoard shows of a run: tag → [(step, value)]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_shown(shown: dict[str, list], job: Job) -> None:
    """Loss, learning rate, gradients, speed and validation are those of the metrics, each step once."""
    metrics = recorded(job)
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "data_wait"):
        assert [step for step, _ in shown[f"train/{name}"]] == list(range(1, 9))
        for ours, theirs in zip(metrics["train"][name], shown[f"train/{name}"], strict=True):
            assert theirs == pytest.approx(ours)
    assert [step for step, _ in shown["eval/loss"]] == [0, 4, 8]
    assert [value for _, value in shown["eval/loss"]] == pytest.approx([v for _, v in metrics["validation"]["loss"]])


@needs_tensorboard
def test_tensorboard_shows_what_was_measured(run):
    plain, silent = run("plain")
    weights, job = run("whole", "tensorboard")
    assert torch.equal(plain, weights)
    [folder] = (job.work / "tensorboard").iterdir()  # it outlives the result's publication
    assert_shown(curves(folder), job)
    assert json.loads((job.output / "manifest.json").read_text())["files"].keys() == {"model.txt"}
    assert not list(silent.work.rglob("events.out*"))
    assert not any(SECRET.encode() in path.read_bytes() for path in job.work.rglob("*") if path.is_file())


@needs_tensorboard
@pytest.mark.parametrize("save_minutes", [0, 60])  # the state of the step before the kill, and none
def test_a_killed_training_goes_on_with_its_curve(run, save_minutes):
    with pytest.raises(Killed):
        run("cut", "tensorboard", after=6, save_minutes=save_minutes)
    weights, job = run("cut", "tensorboard")
    assert torch.equal(weights, run("whole")[0])
    [folder] = (job.work / "tensorboard").iterdir()
    assert len(list(folder.iterdir())) == 2
    assert_shown(curves(folder), job)


@needs_tensorboard
def test_a_training_that_is_made_again_has_a_curve_of_its_own(run):
    for _ in range(2):
        _, job = run("again", "tensorboard")
    assert len(list((job.work / "tensorboard").iterdir())) == 2


@needs_tensorboard
def test_of_several_processes_the_first_reports(run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):  # what is left to do, the first does
        run("second", "tensorboard")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(Killed):
        run("second", "tensorboard", after=2)


class Calls(list):
    """What a tracker's package was asked for: (name, positional arguments, named ones)."""

    def of(self, name: str):
        def called(*values, **named):
            self.append((name, values, named))
            return SimpleNamespace(info=SimpleNamespace(run_id=named.get("run_id") or "the-id"))

        return called

    def named(self, name: str) -> list[dict]:
        return [named for called, _, named in self if called == name]

    def values(self, name: str) -> list:
        return [values[0] for called, values, _ in self if called == name]


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for trackers' packages, with what transformers' callbacks use; gives the calls of each."""
    calls = {name: Calls() for name in ("wandb", "trackio", "mlflow")}

    def install(name: str, functions: str, **more) -> None:
        module = ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        for function in functions.split():
            setattr(module, function, calls[name].of(function))
        vars(module).update(more)
        monkeypatch.setitem(sys.modules, name, module)

    class Config(dict):
        def update(self, values, **_):
            super().update(values)

    config = {"config": Config()}
    install(
        "wandb",
        "init finish log define_metric termwarn",
        run=SimpleNamespace(_label=lambda **_: None, summary={}),
        **config,
    )
    errors = ModuleType("wandb.sdk.lib.config_util")
    errors.ConfigError = KeyError
    for name in ("wandb.sdk", "wandb.sdk.lib"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, errors.__name__, errors)
    space = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))
    install("trackio", "init finish log", context_vars=space, **config)
    limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    install(
        "mlflow",
        "set_experiment start_run end_run log_params log_metrics set_tracking_uri",
        utils=SimpleNamespace(validation=limits),
        active_run=lambda: SimpleNamespace(info=SimpleNamespace(run_id="the-id")),
        is_tracking_uri_set=lambda: True,
        get_tracking_uri=lambda: "here",
        __version__="3.0",
    )
    return calls


def by_step(logs: list[dict], tag: str) -> dict[int, float]:
    return {log["train/global_step"]: log[tag] for log in logs if tag in log}


def test_the_other_trackers_get_the_run_and_its_values(run, packages, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with pytest.raises(Killed):
        run("job", *packages, after=6)
    _, job = run("job", *packages)
    metrics = recorded(job)
    first, second = packages["wandb"].named("init")
    assert first == second | {"resume": "allow"} and first["project"] == "tiny" and first["name"] == "tiny/chain/small"
    assert first["dir"] == job.work and [each["exit_code"] for each in packages["wandb"].named("finish")] == [1, 0]
    begun, resumed = packages["trackio"].named("init")
    assert begun == resumed and begun["project"] == "tiny" and begun["resume"] == "allow" and begun["space_id"] is None
    assert begun["name"] == f"tiny/chain/small {first['id']}"
    assert packages["mlflow"].values("set_experiment") == ["tiny", "tiny"]
    assert packages["mlflow"].named("start_run") == [
        {"run_id": None, "run_name": "tiny/chain/small"},
        {"run_id": "the-id", "run_name": "tiny/chain/small"},
    ]
    assert packages["mlflow"].values("end_run") == ["FAILED", "FINISHED"]
    for name in ("wandb", "trackio"):
        logs = packages[name].values("log")
        for tag, split, key in (
            ("train/loss", "train", "loss"),
            ("train/learning_rate", "train", "learning_rate"),
            ("eval/loss", "validation", "loss"),
        ):
            assert by_step(logs, tag) == pytest.approx(dict(metrics[split][key]))
    logs = packages["mlflow"].named("log_metrics")
    losses = {each["step"]: each["metrics"]["loss"] for each in logs if "loss" in each["metrics"]}
    assert losses == pytest.approx(dict(metrics["train"]["loss"]))
    for values in (packages["wandb"], packages["trackio"], packages["mlflow"]):
        assert SECRET not in repr(values)


def test_a_tracker_that_cannot_begin_is_refused_without_its_password(run, packages, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("https://me:hidden@tracker.test/api: refused\nand more")

    monkeypatch.setattr(sys.modules["mlflow"], "start_run", fails)
    line = r"^runtime.report_to: mlflow cannot begin a run \(https://…@tracker.test/api: refused\); .*leave mlflow out$"
    with pytest.raises(ColpipeError, match=line):
        run("job", "mlflow")


def test_a_missing_package_is_refused(monkeypatch):
    monkeypatch.setattr("colpipe.config.trackers.find_spec", lambda name: None)
    line = "report_to: wandb, mlflow: not installed; pip install wandb mlflow, or leave wandb, mlflow out"
    with pytest.raises(ColpipeError, match=line):
        require_trackers(["wandb", "mlflow"])


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_stage_refuses_it_first(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    words = ("--model", tmp_path / "model", "--output", tmp_path / "out", "--runtime", '{"report_to": ["wandb"]}')
    refused = stage("evaluate", *words, check=False)
    assert refused.returncode == 1
    assert "error: runtime.report_to: wandb: not installed; pip install wandb, or leave wandb out" in refused.stderr
    assert not (tmp_path / "out").exists()
