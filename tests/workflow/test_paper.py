"""The paper as targets: the full studies as plans, a part of the micro study on the real DAG, and what a change rebuilds."""

import json
import math
import re

import pandas as pd
import pytest
import yaml

from colpipe.data.rows import read_rows
from tests.conftest import CHECKOUT, checkout, snakemake
from tests.workflow.conftest import planned, run

pytestmark = pytest.mark.slow

# What the paper's tables need of each study. GPT-2: six models fine-tuned; chains of three for three ancestors, and the
# direct one; random DesNets once for all ancestors: 25 trainings (five sizes with four budgets, two with two more, the very
# small one); of LInit 41: 20 for GPT2-XL (Figures 9, 10), 20 for the other two, the very small one; 9 of its rivals.
JOBS = {
    "gpt2": {"sft": 6, "bridge": 2, "distill": 12, "distill_desnet": 3, "recover": 75, "stack": 1, "exhibit": 21},
    "pythia": {"sft": 5, "distill": 6, "recover": 3, "evaluate": 3, "exhibit": 2},
    "qwen3": {"sft": 3, "distill": 2, "recover": 2, "evaluate": 2, "exhibit": 1},
    "paper-micro": {
        "sft": 5,
        "bridge": 1,
        "distill": 11,
        "distill_desnet": 3,
        "recover": 66,
        "stack": 1,
        "exhibit": 24,
    },
}
BUDGETS = {"40k": "512", "50k": "640", "100k": "768", "150k": "896", "250k": "1024", "500k": "1152", "800k": "2048"}
TARGETS = ("table6", "table7", "table12", "table13", "figure5b", "figure8")


@pytest.mark.parametrize("study", JOBS)
def test_the_studies_of_the_paper_have_the_jobs_that_it_needs(study, tmp_path):
    dry = snakemake(tmp_path, "-n", "paper", "--configfile", str(CHECKOUT / "config" / f"{study}.yaml"))
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", dry.stdout + dry.stderr, re.MULTILINE)}
    assert counts | JOBS[study] == counts
    outputs = re.findall(r"^ +output: (.+)$", dry.stdout + dry.stderr, re.MULTILINE)
    assert len(outputs) == len(set(outputs)) == counts["total"] - 1  # nothing twice; the target itself makes nothing


@pytest.fixture(scope="module")
def micro(tmp_path_factory, inputs):
    """The micro study with the tests' own data, a few steps everywhere, and some of its tables made."""
    study = yaml.safe_load((CHECKOUT / "config/paper-micro.yaml").read_text())
    home = checkout(tmp_path_factory.mktemp("micro"), inputs, shrunk(study))
    rows = [
        {"question": f"Is it {number}?", "options": "A. yes\nB. no", "answer": "AB"[number % 2] + ". "}
        for number in range(60)
    ]
    (home / "inputs/choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(home, "--", *TARGETS)
    return home


def shrunk(study: dict) -> dict:
    study = replaced(study)
    study["study"], study["architecture"] = "tiny", {"vocabulary": 512, "positions": 512}
    study["models"]["smollm2-135m"] = {"source": {"path": "inputs/llama"}}
    for name, dataset in study["datasets"].items():
        path = {"wikipedia-leads": "articles.json", "boolq": "boolq"}.get(name, "choices.jsonl")
        dataset |= {"source": {"path": f"inputs/{path}"}, "validation": 0.1, "test": 0.1}
    for instructions in study["instructions"].values():
        instructions |= {"max_tokens": 460, "train_rows": 8, "test_rows": 4}
    for trained in (*study["tasks"].values(), *study["stacks"].values()):
        trained["fine_tune"] = {"steps": 1, "max_length": 500}
    stages = study["stages"]
    stages["sft"]["steps"], stages["answers"]["prompts"] = 2, 2
    stages["pretrain"]["warmup"] = stages["recover"]["warmup"] = 0  # these budgets are a few steps
    stages["distill"] |= {"steps": 12, "rollout": {"size": 12, "max_prompt": 64}}
    return study


def replaced(value):
    """Budgets that fit the tests' text."""
    if isinstance(value, dict):
        return {key: replaced(entry) for key, entry in value.items()}
    return [replaced(entry) for entry in value] if isinstance(value, list) else BUDGETS.get(value, value)


def read(home, path: str) -> dict:
    return json.loads((home / "results/tiny" / path).read_text())


def numbers(home, name: str) -> pd.DataFrame:
    return pd.read_csv(home / f"results/tiny/paper/{name}/{name}.csv")


def test_tables_show_the_scores_of_their_models(micro):
    shown = numbers(micro, "table6")
    main = shown[(shown.metric == "rouge_l") & (shown.task != "average")]
    assert main.made_of.nunique() == 2 and len(main) == 6
    stands = {"boolq": "boolq", "arc-easy": "openbookqa", "winogrande": "piqa"}
    for row in main.itertuples():
        scores = read(micro, f"scores/{row.made_of}/scores.json")
        assert row.ours == pytest.approx(scores[stands[row.task]]["rouge_l"])
        assert row.difference == pytest.approx(row.ours - row.paper) and row.seed == 0
        if len(read_rows(micro / f"results/tiny/data/{stands[row.task]}", "test")) > 1:
            assert row.low <= row.ours <= row.high
        else:  # of one row
            assert math.isnan(row.low) and math.isnan(row.high)
    text = (micro / "results/tiny/paper/table6/table6.md").read_text()
    assert "Table 6" in text and "xl-short for pythia-1.4b-short" in text and "(65.60)" in text
    short = read(micro, "desnets/xl-short/6x80/linit/0/manifest.json")
    assert set(short["parents"]) == {"smaller", "larger", "tokenizer"}


def test_sizes_of_the_desnets(micro):
    assert numbers(micro, "table7").set_index(["model", "size"]).ours["DesNet-380M", "layers"] == 7


def test_a_stack_writes_notes_and_answers(micro):
    found = read(micro, "scores/stacks/fslm/scores.json")
    assert set(found) == {"openbookqa", "mmlu"}
    rows = (micro / "results/tiny/scores/stacks/fslm/answers/mmlu.jsonl").read_text().splitlines()
    asked = (micro / "results/tiny/data/mmlu/test.jsonl").read_text().splitlines()
    assert len(rows) == len(asked) > 0 and all(len(json.loads(row)["notes"]) == 3 for row in rows)
    shown = numbers(micro, "table12").set_index(["init", "task", "metric"])
    assert shown.ours["fslm", "arc", "rouge_l"] == pytest.approx(found["openbookqa"]["rouge_l"])
    assert shown.paper["fslm", "arc", "rouge_l"] == 33.49
    phases = {json.loads(row).get("phase") for row in (micro / "results/tiny/scores/stacks/fslm/metrics.jsonl").open()}
    assert {"mmlu step 1", "mmlu step 3", "mmlu answer"} <= phases


def test_figures_show_the_losses_of_their_models(micro):
    folder = micro / "results/tiny/paper/figure8"
    assert (folder / "figure8.svg").read_text().startswith("<svg") and (folder / "figure8.png").stat().st_size > 1000
    shown = numbers(micro, "figure8")
    curve = shown[(shown.tokens == "500M") & (shown.init == "linit")]
    lines = (micro / "results/tiny/desnets/xl/4x64/linit/768/metrics.jsonl").read_text().splitlines()
    assert curve.raw.tolist() == [record["loss"] for record in map(json.loads, lines) if record["split"] == "train"]
    curves = numbers(micro, "figure5b")
    assert set(curves.method) == {"gpt2-xl-direct", "gpt2-xl"} and set(curves.model) == {"gpt2-b"}


def test_a_changed_number_of_the_paper_rebuilds_the_tables_that_show_it(micro):
    assert planned(micro, "--", *TARGETS) == set()
    data = micro / "colpipe/config/paper.yaml"
    before = data.read_text()
    assert before.count("pythia-1.4b-short: [65.60,") == 1
    try:
        data.write_text(before.replace("pythia-1.4b-short: [65.60,", "pythia-1.4b-short: [65.61,"))
        assert planned(micro, "--", *TARGETS) == {"paper/table6"}
    finally:
        data.write_text(before)


def test_a_changed_desnet_rebuilds_its_rows(micro):
    study = yaml.safe_load((micro / "my-study.yaml").read_text())
    study["desnets"]["2x48"]["shape"]["layers"] = 1
    (micro / "other.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    built = {f"desnets/{parent}/2x48/{init}" for parent, init in (("xl", "linit"), ("scratch", "rand"))}
    models = {f"{path}/{budget}" for path in built for budget in ("0", "640")}
    scores = {f"scores/{path}/640" for path in built}
    assert planned(micro, "--", *TARGETS, study="other.yaml") == {*models, *scores, "paper/table13"}
