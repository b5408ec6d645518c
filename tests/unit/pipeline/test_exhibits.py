"""The paper's numbers are those of the paper, and a table depends on what it shows and on nothing else."""

import copy
from collections import Counter, defaultdict
from types import SimpleNamespace as wildcards

import pytest
import yaml

from colpipe.config import paper
from colpipe.config.loading import load_study
from colpipe.errors import ColpipeError
from colpipe.pipeline import exhibits, score_inputs
from colpipe.pipeline.plan import Plan
from tests.conftest import CHECKOUT

# Averages that are not those of the columns that the paper shows; the notes of the tables say so.
WRONG = {"table11": 5, "table14": 3}


@pytest.fixture
def plan_of(inputs, tmp_path, monkeypatch):
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    return lambda study: Plan(load_study(study))


@pytest.fixture
def papers(study):
    """A study whose DesNets stand for two of the paper's."""
    study["initialisers"]["nested"] = {"kind": "linit", "method": "nested"}
    study["paper"] = {
        "gpt2-xl": "llama",
        "linit": "nested",
        "DesNet-138M": "lower",
        "DesNet-380M": "upper",
        "100M": "512",
        "gpt2-b": "small",
    }
    return study


def test_every_table_and_figure_is_there_and_every_cell_once():
    shown = paper.paper()
    figures = ["figure3", "figure4", "figure5a", "figure5b", *(f"figure{number}" for number in range(6, 11))]
    assert sorted(shown) == sorted([*(f"table{number}" for number in range(1, 16)), *figures])
    for name, entry in shown.items():
        counted = Counter(tuple(sorted(cell.names.items())) for cell in paper.all_cells(entry))
        assert set(counted.values()) == {1}, name


def test_the_papers_averages_are_the_means_of_its_columns():
    wrong, right = Counter(), 0
    for name, entry in paper.paper().items():
        tasks = defaultdict(dict)
        for cell in paper.all_cells(entry):
            if "task" in cell.names:
                tasks[cell.model][cell.names["task"]] = cell.paper
        for numbers in tasks.values():
            average = numbers.pop(paper.AVERAGE, None)
            if average is not None:
                mean = sum(numbers.values()) / len(numbers)
                wrong[name] += abs(average - mean) > 0.011
                right += abs(average - mean) <= 0.011
    assert {name: count for name, count in wrong.items() if count} == WRONG
    assert right == 100


def test_cells_stand_where_the_paper_has_them():
    found = {tuple(cell.names.values()): cell.paper for cell in paper.all_cells(paper.paper()["table1"])}
    assert found["DesNet-380M", "xlsum", "qwen3-4b", "100M", "linit"] == 37.28  # the text of §4.1 names both
    assert found["DesNet-380M", "xlsum", "qwen3-4b", "100M", "rand"] == 22.62
    steps = [cell.paper for cell in paper.all_cells(paper.paper()["figure8"])]
    assert round(steps[1] / steps[0], 2) == 217.86 and round(steps[3] / steps[2], 2) == 50.04  # Appendix G


def test_what_a_table_is_made_of(plan_of, papers):
    papers["ancestors"]["gpt2-xl-direct"] = {**papers["ancestors"]["llama"], "teacher": "ancestor", "desnets": []}
    papers["tasks"]["dolly"] = {"instructions": "describe", "fine_tune": None, "max_new_tokens": 4}
    plan = plan_of(papers)
    assert exhibits.models(plan, "table3") == {
        "gpt2-xl-direct/origin/distilled/-": "bridges/gpt2-xl-direct",
        "gpt2-xl-direct/gpt2-b/distilled/-": "chain/gpt2-xl-direct/small",
        "gpt2-xl/origin/distilled/-": "bridges/llama",
        "gpt2-xl/gpt2-b/distilled/-": "chain/llama/small",
    }
    found = plan.inputs_of("exhibit", wildcards(exhibit="table3"))["made-of"]
    assert found["scores/chain/llama/small"] == "results/tiny/scores/chain/llama/small"
    curves = plan.inputs_of("exhibit", wildcards(exhibit="figure5b"))["made-of"]
    assert list(curves) == ["chain/gpt2-xl-direct/small", "chain/llama/small"]
    assert plan.inputs_of("exhibit", wildcards(exhibit="table7")) == {}
    sizes = plan.settings_of("exhibit", wildcards(exhibit="table7"))["sizes"]
    assert sizes["desnets/upper"]["layers"] == 4 and len(sizes) == 2


def test_a_study_without_the_models_of_a_table_is_told_which(plan_of, papers):
    with pytest.raises(ColpipeError, match=r"has none of the models of table10 .*ancestor qwen3-4b.*say under `paper`"):
        exhibits.models(plan_of(papers), "table10")
    names = [folder.split("/")[3] for folder in plan_of(papers).manifests_of("paper")]
    assert "table7" in names and "figure7" in names and "table10" not in names


def test_a_changed_number_of_the_paper_changes_the_tables_that_show_it(plan_of, papers, monkeypatch):
    study = papers | {"tasks": papers["tasks"] | {"xlsum": papers["tasks"]["boolq"]}}
    names = [folder.split("/")[3] for folder in plan_of(study).manifests_of("paper")]

    def settings():
        plan = plan_of(study)
        return {name: plan.settings_text("exhibit", wildcards(exhibit=name)) for name in names}

    before, changed = settings(), copy.deepcopy(paper.paper())
    for name in ("table8", "figure3"):
        changed[name]["parts"][0]["values"]["DesNet-138M"]["xlsum"][0] = 1.0
    for module in (exhibits, score_inputs):
        monkeypatch.setattr(module, "paper", lambda: changed)
    assert {name for name, text in settings().items() if text != before[name]} == {"table8", "figure3"}


def test_a_changed_desnet_changes_the_tables_that_show_it(plan_of, papers):
    """What a table reads from is compared by content, so only the models that it names matter."""
    plan = plan_of(papers)
    of_lower = {
        name
        for name in (folder.split("/")[3] for folder in plan.manifests_of("paper"))
        if any("/lower" in path for path in exhibits.models(plan, name).values())
    }
    before = {name: plan.settings_text("exhibit", wildcards(exhibit=name)) for name in of_lower}
    papers["desnets"]["lower"]["shape"] = {"layers": 3, "heads": 1, "hidden": 8}
    after = plan_of(papers)
    changed = {name for name in of_lower if after.settings_text("exhibit", wildcards(exhibit=name)) != before[name]}
    assert "table7" in changed and changed == {"table7"}  # the others are changed by their scores


def test_names_that_nobody_knows_are_refused(plan_of, papers):
    papers["paper"] |= {"DesNet-1M": "upper", "dolly": "nothing"}
    with pytest.raises(ColpipeError) as error:
        plan_of(papers)
    assert "paper.DesNet-1M: not a name of the paper's tables" in str(error.value)
    assert "paper.dolly: 'nothing' is no ancestor" in str(error.value)


@pytest.mark.parametrize("name", ["gpt2", "pythia", "qwen3"])
def test_desnets_have_the_parameters_that_the_paper_names_them_by(name):
    study = load_study(yaml.safe_load((CHECKOUT / f"config/{name}.yaml").read_text()))
    for desnet, entry in study.desnets.items():
        wanted = float(desnet[len("DesNet-") : -1]) * {"M": 1e6, "B": 1e9}[desnet[-1]]
        assert study.parameters(entry.shape) == pytest.approx(wanted, rel=0.006), (
            desnet
        )  # the paper rounds 138.6 to 138


def test_a_pair_of_pythia_that_no_desnet_lies_between_is_explained():
    config = yaml.safe_load((CHECKOUT / "config/pythia.yaml").read_text())
    config["desnets"]["between"] = {"shape": {"layers": 16, "heads": 8, "hidden": 1536}}
    with pytest.raises(ColpipeError) as error:
        load_study(config, "config/pythia.yaml")
    told = "desnets.between.shape: head_dim is 192, but {} in {}; heads are taken whole, so they must agree"
    assert told.format(64, "pythia-410m") in str(error.value) and told.format(256, "pythia-1b") in str(error.value)
