"""The main promise: content decides reruns. Each test changes one thing and compares the planned jobs with the exact set."""

import contextlib
import copy
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import forked
from tests.conftest import CHECKOUT, SECRET, STUDY
from tests.unit.jobs.test_start import until
from tests.workflow.conftest import planned, run
from tests.workflow.test_start import at_work

pytestmark = pytest.mark.slow


def scored(*models: str) -> set[str]:
    """Models with what follows each of them: its scores, and the report."""
    return {*models, *(f"scores/{model}" for model in models), "report"}


def desnet(name: str, init: str = "nested", parent: str = "llama") -> list[str]:
    return [f"desnets/{parent}/{name}/{init}/{budget}" for budget in ("0", "512")]


@contextlib.contextmanager
def changed(path):
    """Put a file back as it was, its time included."""
    status, content = path.stat(), path.read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def other_study(finished):
    """Write a changed copy of the study and return its name."""

    def write(change) -> str:
        study = copy.deepcopy(STUDY)
        change(study)
        (finished.home / "other.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        return "other.yaml"

    return write


def test_everything_is_made_once(finished):
    assert (finished.results / "report.html").exists()
    summary = (finished.results / "summary.csv").read_text()
    assert summary.startswith("ancestor,desnet,params,init,alpha,tokens,task,metric,value,low,high,seed\n")
    assert ",majority," in summary and ",chance," in summary
    assert planned(finished.home) == set()


def test_no_secret_is_written(finished):
    files = [path for path in finished.home.rglob("*") if path.is_file()]
    assert len(files) > 200 and not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in finished.first.stdout + finished.first.stderr


def test_every_model_folder_is_a_stock_model_with_its_tokenizer(finished):
    other = {"work", "published"}  # another test on the same run publishes its DesNets
    folders = [path.parent for path in finished.results.rglob("config.json") if not other & set(path.parts)]
    assert len(folders) == 14  # sft, pretrained, bridge, 3 members, 2 × 2 × 2 DesNets
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("the old city", return_tensors="pt")["input_ids"]
        assert model(ids).logits.isfinite().all()
        assert model.config.eos_token_id == tokenizer.eos_token_id


def test_touching_every_file_reruns_nothing(finished):
    for path in finished.results.rglob("*"):
        if path.is_file() and "work" not in path.parts:
            path.touch()
    time.sleep(0.01)
    for path in (finished.home / "colpipe").rglob("*.py"):
        path.touch()
    assert planned(finished.home) == set()


MEDIUM = "chain/llama/medium"
AFTER_MEDIUM = scored("chain/llama/small", *desnet("upper"), *desnet("lower")) | {f"scores/{MEDIUM}"}


def test_one_byte_of_a_checkpoint_reruns_exactly_its_consumers(finished):
    with changed(finished.results / MEDIUM / "model.safetensors") as path:
        content = bytearray(path.read_bytes())
        content[-7] ^= 1
        path.write_bytes(content)
        assert planned(finished.home) == AFTER_MEDIUM


def test_another_model_of_the_same_shape_in_its_place_does_too(finished, tmp_path):
    folder = finished.results / MEDIUM
    with changed(folder / "model.safetensors") as path:
        tensors = {name: torch.randn_like(tensor) for name, tensor in load_file(path).items()}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        shutil.copy(tmp_path / "model.safetensors", path)
        assert planned(finished.home) == AFTER_MEDIUM


def test_distillation_steps_of_one_member(finished, other_study):
    study = other_study(lambda s: s["chain"]["small"].update(distill={"steps": 5}))
    assert planned(finished.home, study=study) == scored("chain/llama/small", *desnet("lower"))


def test_the_alpha_of_one_desnet(finished, other_study):
    study = other_study(lambda s: s["desnets"]["upper"].update(alpha=0.123))
    assert planned(finished.home, study=study) == scored(*desnet("upper"))


def test_settings_of_a_task(finished, other_study):
    study = other_study(lambda s: s["tasks"]["boolq"].update(max_new_tokens=2))
    models = ["bridges/llama", *(f"chain/llama/{name}" for name in STUDY["chain"])]
    for name in STUDY["desnets"]:
        models += [*desnet(name), *desnet(name, "rand", "scratch")]
    assert planned(finished.home, study=study) == {"report", *(f"scores/{model}" for model in models)}


def test_one_more_budget_makes_only_what_is_new(finished, other_study):
    study = other_study(lambda s: s["budgets"].append(1024))
    new = [f"desnets/{parent}/{name}/{init}/1024" for name in STUDY["desnets"]
           for parent, init in (("llama", "nested"), ("scratch", "rand"))]  # fmt: skip
    assert planned(finished.home, study=study) == scored(*new)


def test_runtime_settings_rerun_nothing(finished, other_study):
    pytest.importorskip("tensorboard")
    runtime = {"micro_batch": 1, "save_minutes": 0, "progress_seconds": 1, "report_to": ["tensorboard"]}
    study = other_study(lambda s: s.update(runtime=runtime))
    assert planned(finished.home, "--set-threads", "distill=1", study=study) - {"report"} == set()


def test_a_changed_local_input_reruns_what_it_feeds(finished):
    with changed(finished.home / "inputs" / "boolq" / "combined.jsonl") as path:
        path.write_text(path.read_text().replace("true", "false", 1))
        jobs = planned(finished.home)
    assert any(job.startswith("resources/data/questions-") for job in jobs)
    assert "data/boolq" in jobs and "scores/bridges/llama" in jobs
    assert not any(job.startswith(("chain/", "desnets/", "data/stories")) for job in jobs)


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("stages/recover.py", {"desnets"}),
        ("stages/evaluate.py", set()),
        ("learngene/selection.py", {"chain", "desnets"}),
        ("data/readers/boolq.py", {"data", "leakage"}),
    ],
)
def test_editing_a_module_reruns_the_stages_that_use_it(finished, module, stages):
    with changed(finished.home / "colpipe" / module) as path:
        path.write_text(path.read_text() + "\n# a comment changes nothing\n")
        assert planned(finished.home) == set()
        path.write_text(path.read_text() + "\nCHANGED = True\n")
        jobs = planned(finished.home)
    assert {job.split("/")[0] for job in jobs} == {*stages, "scores", "report"}
    if module == "data/readers/boolq.py":
        assert {job for job in jobs if job.startswith("data/")} == {"data/boolq"}
    if module == "stages/recover.py":
        assert not any(job.startswith("desnets/") and job.endswith("/0") for job in jobs)


def test_a_frozen_run_looks_at_no_code(finished, other_study):
    frozen = ["--workflow-profile", "workflow/profiles/frozen"]
    assert planned(finished.home, *frozen) == set()
    with changed(finished.home / "colpipe/stages/recover.py") as path:
        path.write_text(path.read_text() + "\nCHANGED = True\n")
        assert planned(finished.home, *frozen) == set()
        assert planned(finished.home) != set()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_change_costs_nothing(finished, other_study, stop):
    """What was there is valid until its successor is finished: with the settings put back, nothing is to be done."""
    study = other_study(lambda s: s.update(runtime={"save_minutes": 0}) or s["stages"]["distill"].update(steps=10**6))
    state = finished.results / "work/chain/llama/large"
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", study]
    run_of = subprocess.Popen(
        command,
        cwd=finished.home,
        env=forked.environment(),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )
    while not list(state.glob("state-*")):  # it trains
        assert run_of.poll() is None
        time.sleep(0.2)
    assert not (finished.results / "chain/llama/large/manifest.json").exists()
    os.killpg(run_of.pid, stop)  # as a terminal does
    run_of.wait()
    until(lambda: not at_work(finished.home))  # jobs outlive a Snakemake that is killed
    for left in state.glob("state-*"):
        shutil.rmtree(left)
    if stop == signal.SIGKILL:
        assert planned(finished.home, study=study) >= scored("chain/llama/large")
        run(finished.home, "--unlock")
    assert planned(finished.home) == set()
    assert "Nothing to be done" in run(finished.home).stderr
    assert not list(finished.results.rglob(".superseded.json"))


def test_random_changes_rerun_exactly_what_they_touch(finished):
    """Sixty cases, drawn anew with RERUNS_SEED."""
    command = [sys.executable, "-m", "tests.reruns", str(finished.home), "--seed", os.environ.get("RERUNS_SEED", "0")]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    print(result.stdout)
    assert result.returncode == 0, result.stderr
    assert "60 cases" in result.stdout


def test_everything_at_once(finished, other_study, tmp_path):
    """Settings, seed, a byte, a DesNet more, `--touch` and a lost memory: all of it is seen, and all of it together."""
    study = other_study(
        lambda s: (
            [s["stages"][stage].update(learning_rate=0.0002) for stage in ("pretrain", "distill", "recover")],
            s["desnets"].update(more={"shape": {"layers": 3, "heads": 2, "hidden": 16}}),
        )
    )
    everything = planned(finished.home, "--forceall", study=study) - {"sft/llama"}
    home = tmp_path / "elsewhere"
    shutil.copytree(finished.home, home, symlinks=True)
    shutil.rmtree(home / ".snakemake")
    run(home, "--touch", study=study)
    with changed(home / "results/tiny" / MEDIUM / "model.safetensors") as path:
        content = bytearray(path.read_bytes())
        content[-7] ^= 1
        path.write_bytes(content)
        prepared = {"tokenizer", "answers/llama", *(f"data/{name}" for name in ("stories", "describe", "boolq"))}
        same = {name for name in everything if name.startswith("resources/")} | prepared | {"leakage"}
        for name in STUDY["desnets"]:  # random ones descend from no model
            same |= {f"desnets/scratch/{name}/rand/0", f"scores/desnets/scratch/{name}/rand/0"}
        assert planned(home, study=study) == everything - same
        assert planned(home, "--config", "seed=7", study=study) >= everything - same | prepared


def test_another_name_of_the_same_content(finished, tmp_path):
    """Snakemake sees another set of inputs, and would run only what reads them, past all that has to be made again."""
    home = tmp_path / "elsewhere"
    shutil.copytree(finished.home, home, symlinks=True)
    study = copy.deepcopy(STUDY)
    study["datasets"]["papers"] = study["datasets"].pop("articles")
    study["corpora"]["stories"]["dataset"] = study["instructions"]["describe"]["dataset"] = "papers"
    (home / "my-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    staged = next((home / "resources/data").glob("articles-*"))
    shutil.copytree(staged, staged.with_name(staged.name.replace("articles", "papers")), symlinks=True)
    jobs = planned(home)  # settings of instructions name their data set, those of a corpus and a tokenizer do not
    assert {"data/describe", "sft/llama", *AFTER_MEDIUM} <= jobs and not {"tokenizer", "data/stories"} & jobs
    shutil.rmtree(home / ".snakemake")
    assert planned(home) == jobs


def test_a_row_of_a_source_with_its_size_and_time_is_seen(finished):
    """As `rsync -t` or an archive puts it there."""
    with changed(finished.home / "inputs" / "boolq" / "combined.jsonl") as path:
        status, text = path.stat(), path.read_text()
        path.write_text(text.replace("is ", "Is ", 1))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size
        assert "data/boolq" in planned(finished.home)
    assert planned(finished.home) == set()


def test_a_deleted_weight_file_is_told_not_rebuilt_around(finished, tmp_path):
    path = finished.results / MEDIUM / "model.safetensors"
    status, kept = path.stat(), shutil.copy2(path, tmp_path)
    path.unlink()
    try:
        result = run(finished.home, check=False)
        assert result.returncode != 0
        assert f"{MEDIUM}/model.safetensors: is gone" in result.stdout + result.stderr
        assert "Traceback" not in result.stderr
    finally:
        shutil.copy2(kept, path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_forced_job_has_what_follows_made_again(finished):
    forced = planned(finished.home, "--forcerun", "distill")
    assert forced >= AFTER_MEDIUM | {MEDIUM, "chain/llama/large"} and "bridges/llama" not in forced
    target = f"results/tiny/{MEDIUM}/manifest.json"
    assert planned(finished.home, "--forcerun", target, "--", "all") == AFTER_MEDIUM | {MEDIUM}


def test_targets_and_graphs(finished):
    for target in ("chain", "desnets", "recovered", "scores", "report", "all"):
        dry = run(finished.home, "-n", target)
        assert "Nothing to be done" in dry.stdout + dry.stderr
    graph = run(finished.home, "--rulegraph").stdout
    assert graph.count("label = ") >= 13
    lint = run(finished.home, "--lint")
    assert "Congratulations" in lint.stdout + lint.stderr


def test_nothing_that_differs_between_equal_runs_is_in_a_manifest(finished, tmp_path):
    """A rerun of one stage in another place gives the same manifest, byte for byte."""
    manifest = finished.results / "chain/llama/small/manifest.json"
    before = manifest.read_text()
    weights = (finished.results / "chain/llama/small/model.safetensors").read_bytes()
    run(finished.home, "--force", "results/tiny/chain/llama/small/manifest.json")
    assert manifest.read_text() == before
    assert (finished.results / "chain/llama/small/model.safetensors").read_bytes() == weights
    run(finished.home)  # what Snakemake thinks is behind it
    assert planned(finished.home) == set()
