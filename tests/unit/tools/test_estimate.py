"""What is told before a run: quick, without torch, from files and `--config`; rates of past runs; what many sizes cost."""

import json
import platform
import subprocess
import sys
import time

import pytest
import yaml

from colpipe.config.loading import load_study
from colpipe.cost.devices import PEAKS, UTILISATION, seconds_on
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import write_json
from colpipe.pipeline.plan import Plan
from colpipe.reporting.cost import COLUMNS, estimate_and_fact
from colpipe.reporting.many_sizes import estimate_sizes, recorded_sizes
from colpipe.tools import estimate
from colpipe.tools.estimate import cpu_rates, main, number, report
from tests.conftest import CHECKOUT, snakemake


@pytest.fixture
def home(study, inputs, tmp_path, monkeypatch):
    """A folder with inputs/ and my-study.yaml, and nothing made yet."""
    (tmp_path / "inputs").symlink_to(inputs)
    (tmp_path / "my-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_torch_and_the_whole_study(home, study):
    program = (
        "import sys; from colpipe.tools.estimate import main; main(['my-study.yaml']); print('torch' in sys.modules)"
    )
    begun = time.process_time()
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=home, env={"PYTHONPATH": str(CHECKOUT)}
    )
    assert not found.returncode, found.stderr
    *lines, torch = found.stdout.splitlines()
    assert torch == "False" and time.process_time() - begun < 5
    row = next(line.split() for line in lines if line.startswith("all"))
    assert row[1] == str(len(Plan(load_study(study)).jobs()))
    assert "no past runs under results/" in found.stdout and f"{UTILISATION:.0%}" in found.stdout


@pytest.mark.slow
def test_as_a_target_of_the_workflow(home):
    found = snakemake(home, "estimate", "--configfile", "my-study.yaml", "--config", "budgets=[0, 512, 1024]")
    line = next(line for line in found.stdout.splitlines() if line.startswith("recover "))
    assert line.split()[1] == "8"
    assert not (home / "results" / "tiny" / "data").exists()


def test_widths_that_cannot_be_quantised_are_told(home, capsys):
    text = (CHECKOUT / "config/elastic-smollm2.yaml").read_text().replace(", align: 32", "").replace("480", "474")
    (home / "odd.yaml").write_text(text)
    line = "desnets.24x474.shape: not quantisable (Q8_0, Q4_0): hidden 474, not in multiples of 32; "
    line += "architecture.align: 32 refuses such shapes, 1 allows them"
    main(["odd.yaml"])
    assert capsys.readouterr().out.splitlines()[-1] == line
    dry = snakemake(home, "-n", "chain", "--configfile", "odd.yaml")
    assert (dry.stdout + dry.stderr).count(line) == 1


def test_bad_input_is_one_line(home):
    (home / "my-study.yaml").write_text("study: [")
    found = subprocess.run(
        [sys.executable, "-m", "colpipe", "estimate", "my-study.yaml"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(CHECKOUT)},
    )
    assert found.returncode == 1 and found.stderr.startswith("colpipe estimate: error: ")


def test_hours_of_a_device():
    peak = PEAKS["H100"]
    assert seconds_on("H100", {"bfloat16": peak["bfloat16"] * UTILISATION}) == pytest.approx(1)
    both = {"bfloat16": peak["bfloat16"] * UTILISATION, "float32": 2 * peak["float32"] * UTILISATION}
    assert seconds_on("H100", both) == pytest.approx(3)


def measurements(file, device="NVIDIA H200", **rates):
    """A file as `make gpu-check` writes it."""
    training = {precision: {"of": f"in {precision}", "flops_per_second": rate} for precision, rate in rates.items()}
    file.parent.mkdir(exist_ok=True)
    write_json(file, {"measured": {"device": device, "training": training}})
    return file


def test_measured_utilisation_is_used_and_named(home, study, capsys):
    assert "measured (" not in report(load_study(study))
    measurements(home / "results/gpu-check.json", bfloat16=4e14, float32=3.35e13)
    text = report(load_study(study))
    line = "NVIDIA H200, as measured (results/gpu-check.json): 400 TFLOP/s in bfloat16 (40% of its peak), in bfloat16; "
    assert line + "33.5 TFLOP/s in float32 (50% of its peak), in float32." in text
    # Half of the peak instead of 40 %: four fifths of the hours, in a column of its own.
    rows = [line.split() for line in text.splitlines() if line.startswith(("stage ", "all "))]
    assert " ".join(rows[0]).endswith("H100 h Ascend 910B h NVIDIA H200 h this CPU h")
    hours = [float(value) for value in rows[1][-4:]]
    assert hours[2] == pytest.approx(0.8 * hours[0], rel=0.1)  # two digits are shown
    main(["my-study.yaml", "--measurements", str(measurements(home / "other/found.json", "Other card", float32=1e13))])
    assert "Other card, as measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"measured": null}', "no training was timed on an accelerator there"),
        (
            '{"measured": {"device": "x", "training": {"float16": {"of": "y", "flops_per_second": 1}}}}',
            "no measurements of",
        ),
        ('{"measured": {"device": "x", "training": {}}}', "no measurements of"),
        ("[1]", "no measurements of `make gpu-check`: TypeError"),
        ("{", "no measurements of"),
    ],
)
def test_files_that_measured_nothing_are_refused(home, study, text, said):
    (home / "found.json").write_text(text)
    with pytest.raises(ColpipeError, match=f"found.json: {said}"):
        report(load_study(study), measurements=home / "found.json")


def test_a_precision_that_was_not_measured_is_refused_for_an_unknown_device(home, study):
    file = measurements(home / "found.json", "Other card", bfloat16=1e14)
    with pytest.raises(ColpipeError, match="Other card: was measured in bfloat16 alone, the study has float32"):
        report(load_study(study), measurements=file)
    assert "NVIDIA A100 h" in report(load_study(study), measurements=measurements(file, "NVIDIA A100", bfloat16=1e14))


def test_rates_are_of_this_host_and_of_accounts_that_are_whole(tmp_path):
    def read_account(name: str, **changes) -> None:
        run = {"host": "here", "device": "cpu", "stage": "sft", "flops": 6e9, "device_seconds": 2.0}
        folder = tmp_path / "study" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(run | changes))

    read_account("one")
    read_account("two", flops=4e9, device_seconds=3.0)
    read_account("three", stage="distill", flops=10e9, device_seconds=1.0)
    read_account("elsewhere", host="there", flops=1e15)
    read_account("faster", device="NVIDIA H100", flops=1e15)
    read_account("idle", flops=0, device_seconds=100.0)
    old = tmp_path / "study" / "old"
    old.mkdir()
    (old / "run.json").write_text('{"host": "here", "seconds": 3}')
    assert cpu_rates(tmp_path, "here") == {"sft": 2e9, "distill": 10e9, "": pytest.approx(20e9 / 6)}


def test_a_chain_costs_once_what_each_size_costs_alone(home, study):
    plan = Plan(load_study(study))
    found = estimate_sizes(plan)
    rows = found.rows(2)
    assert [row["sizes"] for row in rows] == [1, 2, 10, 100]
    one, two = rows[:2]
    assert one["chain"] == two["chain"] == found.once and found.recovered == 512
    assert two["chain, + 512 each"] - one["chain, + 512 each"] == pytest.approx(found.size)
    assert two["each distilled"] - one["each distilled"] == pytest.approx(found.distilled)
    assert two["each pre-trained"] == pytest.approx(2 * found.pretrained)
    assert two["each pre-trained / chain"] == pytest.approx(2 * found.pretrained / found.once)
    chain = {job.rule for job in plan.jobs([plan.teacher("llama", member) for member in study["chain"]])}
    assert {"sft", "bridge_answers", "bridge", "distill", "pretrain"} <= chain and "recover" not in chain


def test_without_desnets_or_pretraining(home, study):
    study["models"]["bridge"] = {"source": {"hub": "owner/bridge"}}
    study["architecture"]["tied"] = True
    del study["stages"]["pretrain"]
    study["budgets"] = [0, 512, 2048]
    found = estimate_sizes(Plan(load_study(study)))
    assert found.size < found.pretrained < 4 * found.size  # what random DesNets are trained on at most; scored as often
    study["budgets"] = [0]
    text = report(load_study(study))
    assert "pre-trained" not in text and "recovered" not in text
    assert estimate_sizes(Plan(load_study({**study, "desnets": {}, "initialisers": {}}))) is None


def test_what_many_sizes_have_cost_is_of_those_that_were_made_in_every_way(home, study):
    study["budgets"] = [0, 512, 1024]
    study["initialisers"]["alone"] = {"kind": "distilled", "budgets": [0]}
    study["desnets"]["upper"]["initialisers"] = ["nested", "rand"]
    plan = Plan(load_study(study))
    seconds = {"distill": 5.0, "bridge": 3.0, "prepare_corpus": 1000.0, "recover": 2.0, "distill_desnet": 7.0}
    for job in plan.jobs():
        used = seconds.get(job.rule, 0.0)
        if job.rule == "recover":
            used *= plan.budgets[job.wildcards.budget] * (10 if job.wildcards.desnet == "upper" else 1)
        (home / job.folder).mkdir(parents=True)
        write_json(
            home / job.folder / "run.json",
            {
                "stage": job.rule,
                "host": "another",
                "device": "cpu",
                "device_seconds": used,
                "flops": int(not job.rule.startswith("prepare")),
            },
        )
    found = recorded_sizes(plan)
    assert (found.once, found.origin) == (3 * 5 + 3, 3)  # preparing data is no model's work
    assert (found.means, found.distilled, found.size, found.pretrained) == ("lower", 7, 2 * 512, 2 * 1024)
    assert found.rows(2)[1]["each distilled / chain"] == pytest.approx((3 + 2 * 7) / 18)
    assert "as finished jobs recorded them, for N sizes, lower" in report(plan.study)
    (home / plan.teacher("llama", "small") / "run.json").unlink()
    assert recorded_sizes(plan) is None  # the chain is not finished


def test_estimate_and_fact(home, study):
    made = load_study(study)
    plan = Plan(made)
    known = {job.folder: work for job, work in plan.work_by_job() if job.rule in ("recover", "distill")}
    for number_, (folder, work) in enumerate(known.items()):
        run = {
            "stage": "x",
            "host": platform.node(),
            "device": "cpu",
            "flops": 2 * work.flops,
            "tokens": 10,
            "seconds": 3.0,
            "device_seconds": 6.0,
            "peak_memory_mb": 100 + number_,
            "peak_device_memory_mb": 0,
            "attempts": 2,
        }
        (home / folder).mkdir(parents=True)
        write_json(home / folder / "run.json", run)
    frame = estimate_and_fact(made, home / plan.results)
    assert list(frame.columns) == COLUMNS
    row = frame.set_index("stage").loc["recover"]
    assert (row.jobs, row.recorded, row.seconds, row.device_seconds, row.attempts) == (4, 4, 12, 24, 8)
    assert row.flops == pytest.approx(2 * row.flops_estimated) and row.flops > 0
    whole = frame.iloc[-1]
    assert whole.stage == "all" and whole.recorded == 7 and whole.jobs == len(plan.jobs())
    assert whole.peak_memory_mb == 106
    assert frame.set_index("stage").loc["evaluate"].recorded == 0


@pytest.mark.parametrize(("value", "text"), [(0, "–"), (12.3, "12.3"), (1_234_567, "1.23 M"), (5e15, "5 P")])
def test_numbers_as_people_read_them(value, text):
    assert number(value) == text


def test_recoveries_that_may_end_early_are_an_upper_bound_and_said_to_be(home, study):
    plain = report(load_study(study))
    study["stages"]["recover"]["stop_at"] = 0.95
    text = report(load_study(study))
    assert (
        "Recoveries count their whole budgets; stages.recover.stop_at 0.95 may end them earlier." in text.splitlines()
    )
    row, before = (next(each for each in found.splitlines() if each.startswith("recover")) for found in (text, plain))
    assert row.count("≤") + row.count("?") == 2 and "stop_at" not in plain
    assert before.split()[:2] == row.split()[:2] == ["recover", "4"]


def test_a_processor_without_bfloat16_is_told_of_where_the_study_has_it(home, study, monkeypatch):
    monkeypatch.setattr(estimate, "lacks_bfloat16", lambda: True)
    assert "no arithmetic in bfloat16" not in report(load_study(study))
    study["stages"]["evaluate"] = {"precision": "bfloat16"}
    assert (
        "no arithmetic in bfloat16 (avx512_bf16, amx_bf16, bf16): what the study has in it takes tens of times as"
        in (report(load_study(study)))
    )
    monkeypatch.setattr(estimate, "lacks_bfloat16", lambda: False)
    assert "no arithmetic in bfloat16" not in report(load_study(study))
