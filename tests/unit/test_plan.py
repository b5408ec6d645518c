import json
from types import SimpleNamespace as wildcards

import pytest

from colpipe.checkpoint import fingerprint
from colpipe.errors import ColpipeError
from colpipe.plan import Plan
from colpipe.snakefile import one_of
from colpipe.study import load_study


@pytest.fixture
def plan_of(inputs, tmp_path, monkeypatch):
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    return lambda study: Plan(load_study(study))


def parents(plan, rule, **values) -> dict:
    return {name: folder.removeprefix("results/tiny/") for name, folder in plan.parents(rule, wildcards(**values))}


def test_the_chain_goes_from_teacher_to_student(plan_of, study):
    plan = plan_of(study)
    teachers = [
        parents(plan, "distill", ancestor="llama", member=member)["teacher"] for member in ("large", "medium", "small")
    ]
    assert teachers == ["bridges/llama", "chain/llama/large", "chain/llama/medium"]


def test_a_homogeneous_ancestor_teaches_itself_and_needs_no_answers(plan_of, study):
    study["models"]["gpt2"] = {"shape": {"layers": 5, "heads": 4, "hidden": 32}}
    study["ancestors"]["gpt2"] = {"model": "gpt2"}
    plan = plan_of(study)
    assert parents(plan, "distill", ancestor="gpt2", member="large")["teacher"] == "sft/gpt2"
    assert plan.start("gpt2") == "results/tiny/pretrained/gpt2"
    assert "bridges/gpt2" not in plan.models


def test_an_ancestor_may_teach_all_members_itself(plan_of, study):
    study["ancestors"]["llama"]["teacher"] = "ancestor"
    plan = plan_of(study)
    assert [
        parents(plan, "distill", ancestor="llama", member=member)["teacher"] for member in ("large", "medium", "small")
    ] == ["bridges/llama"] * 3


@pytest.mark.parametrize("teacher, folder", [("previous", "chain/llama/medium"), ("ancestor", "bridges/llama")])
def test_a_kept_signal_is_that_of_the_teacher(plan_of, study, teacher, folder):
    study["ancestors"]["llama"] |= {"teacher": teacher, "distill": {"signal": 8}}
    plan = plan_of(study)
    signal = parents(plan, "distill", ancestor="llama", member="small")["signal"]
    assert signal == f"signals/llama/{'medium' if teacher == 'previous' else 'origin'}"
    found = parents(plan, "teacher_signal", ancestor="llama", teacher=signal.rpartition("/")[2])
    assert found == {"teacher": folder, "data.describe": "data/describe", "data.stories": "data/stories"}
    assert plan.teacher_signal_settings(wildcards(ancestor="llama", teacher="origin"))["top_k"] == 8


def test_overrides_of_ancestor_and_member(plan_of, study):
    study["ancestors"]["llama"]["distill"] = {"objective": "minillm", "steps": 7, "rollout": {"size": 64}}
    study["chain"]["small"]["distill"] = {"steps": 9, "rollout": {"epochs": 2}}
    plan = plan_of(study)
    settings = plan.distill_settings(wildcards(ancestor="llama", member="small"))["training"]
    assert (settings.objective, settings.steps, settings.rollout.size, settings.rollout.epochs) == ("minillm", 9, 64, 2)
    assert plan.distill_settings(wildcards(ancestor="llama", member="large"))["training"].steps == 7


def test_pretrained_and_scratch_members_are_fine_tuned_first(plan_of, study):
    study["chain"]["large"].update(start="pretrained", model="bridge")
    study["chain"]["medium"].update(start="scratch")
    plan = plan_of(study)
    assert parents(plan, "distill", ancestor="llama", member="large")["student"] == "sft/bridge"
    assert parents(plan, "distill", ancestor="llama", member="medium")["student"] == "sft/medium"
    assert parents(plan, "sft", start="medium")["model"] == "pretrained/medium"
    assert "student" not in parents(plan, "distill", ancestor="llama", member="small")


def test_random_desnets_are_shared_by_all_ancestors(plan_of, study):
    one = plan_of(study)
    study["ancestors"]["again"] = dict(study["ancestors"]["llama"])
    two = plan_of(study)
    random = [path for path in one.models if path.startswith("desnets/scratch/")]
    assert len(random) == 4
    assert [path for path in two.models if path.startswith("desnets/scratch/")] == random
    assert parents(one, "assemble", ancestor="scratch", desnet="upper", init="rand") == {"tokenizer": "tokenizer"}


def test_neighbours_below_the_chain(plan_of, study):
    study["desnets"]["below"] = {"shape": {"layers": 1, "heads": 1, "hidden": 8}}
    plan = plan_of(study)
    found = parents(plan, "assemble", ancestor="llama", desnet="below", init="nested")
    assert found == {"tokenizer": "tokenizer", "source": "chain/llama/small"}


def test_each_initialiser_reads_what_it_starts_from(plan_of, study):
    kinds = {"grown": "single", "cut": "subset", "auto": "auto-learngene", "cloned": "hypercloning"}
    study["initialisers"] |= {name: {"kind": kind} for name, kind in kinds.items()}
    study["initialisers"]["searched"] = {"kind": "linit", "method": "nested", "alpha": "search"}
    study["desnets"] = {"double": {"shape": {"layers": 3, "heads": 2, "hidden": 16}}}
    plan = plan_of(study)

    def read(init):
        return parents(plan, "assemble", ancestor="llama", desnet="double", init=init)

    assert read("grown")["source"] == "chain/llama/small"
    assert read("cut")["source"] == "chain/llama/medium"
    assert read("auto")["source"] == "bridges/llama"
    assert read("cloned")["source"] == "chain/llama/medium"  # the largest that fits, once
    assert read("searched")["corpus"] == "data/stories"


def test_an_ordered_ancestor_is_what_the_first_member_is_cut_from(plan_of, study):
    study["ancestors"]["llama"]["select"] = "rank"
    study["stages"]["order"] = {"corpus": "stories"}
    plan = plan_of(study)
    first = parents(plan, "distill", ancestor="llama", member="large")
    assert (first["teacher"], first["ordered"]) == ("bridges/llama", "ordered/llama")
    assert "ordered" not in parents(plan, "distill", ancestor="llama", member="medium")
    assert parents(plan, "order", ancestor="llama") == {"model": "bridges/llama", "corpus": "data/stories"}


def test_studies_share_what_has_the_same_source(plan_of, study):
    first = plan_of(study).fetched["llama"]
    study["study"] = "other"
    assert plan_of(study).fetched["llama"] == first
    study["models"]["llama"]["source"]["files"] = ["*.json", "*.safetensors"]
    assert plan_of(study).fetched["llama"] != first


def test_a_file_that_is_gone_is_told_when_planning(plan_of, study, tmp_path):
    folder = tmp_path / "results/tiny/chain/llama/large"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"files": {"model.safetensors": {}}}')
    with pytest.raises(ColpipeError, match=r"large/model\.safetensors: is gone"):
        plan_of(study).check_finished()


def test_the_report_reads_the_study_in_its_order(plan_of, study):
    names = {"large": "z", "medium": "k", "small": "a"}
    study["chain"] = {names[name]: member for name, member in study["chain"].items()}
    settings = json.loads(plan_of(study).settings("report")(wildcards()))
    assert load_study(settings).members() == ["z", "k", "a"]


def test_one_of():
    assert one_of(["a.b", "c"]) == r"a\.b|c"
    assert one_of([]) == "(?!)"


def test_a_distilled_desnet_has_a_teacher_of_its_own(plan_of, study):
    study["initialisers"] |= {
        "alone": {"kind": "distilled", "distill": {"objective": "seqkd", "steps": 3}},
        "beside": {"kind": "distilled", "teacher": "shared"},
    }
    study["ancestors"]["llama"]["distill"] = {"signal": 8, "steps": 5}
    plan = plan_of(study)
    found = parents(plan, "distill_desnet", ancestor="llama", desnet="lower", init="alone")
    assert found == {
        "teacher": "bridges/llama",
        "tokenizer": "tokenizer",
        "data.describe": "data/describe",
        "data.stories": "data/stories",
    }
    settings = plan.distill_desnet_settings(wildcards(ancestor="llama", desnet="lower", init="alone"))
    assert settings["shape"] == plan.study.desnets["lower"].shape
    training = settings["training"]
    assert (training.objective, training.steps, training.signal) == ("seqkd", 3, None)
    found = parents(plan, "distill_desnet", ancestor="llama", desnet="lower", init="beside")
    assert found["teacher"] == "chain/llama/large"  # of medium, the larger neighbour
    assert plan.inits("distilled") == "alone|beside" and plan.inits("assembled") == "nested|rand"


def test_an_ancestor_may_serve_some_desnets_only(plan_of, study):
    study["ancestors"]["again"] = {**study["ancestors"]["llama"], "desnets": ["upper"], "initialisers": ["nested"]}
    study["desnets"]["lower"]["budgets"] = [0]
    models = plan_of(study).models
    assert [path for path in models if path.startswith("desnets/again")] == [
        "desnets/again/upper/nested/0",
        "desnets/again/upper/nested/512",
    ]
    assert [path for path in models if path.startswith("desnets/llama/lower")] == ["desnets/llama/lower/nested/0"]


def test_what_the_papers_tables_and_figures_are_made_of(plan_of, study):
    with pytest.raises(ColpipeError, match="no two ancestors differ in nothing but `teacher`"):
        parents(plan_of(study), "paper", exhibit="table3")
    with pytest.raises(ColpipeError, match="no DesNet has an initialiser of kind 'distilled'"):
        parents(plan_of(study), "paper", exhibit="figure5a")
    study["ancestors"]["direct"] = {**study["ancestors"]["llama"], "teacher": "ancestor", "desnets": []}
    study["initialisers"]["alone"] = {"kind": "distilled"}
    study["desnets"]["lower"]["initialisers"] = ["nested"]
    plan = plan_of(study)
    members = [f"chain/{ancestor}/{member}" for ancestor in ("direct", "llama") for member in study["chain"]]
    found = [name.removeprefix("made-of.") for name in parents(plan, "paper", exhibit="table3")]
    assert found == [f"scores/{path}" for path in ("bridges/direct", "bridges/llama", *members)]
    found = [name.removeprefix("made-of.") for name in parents(plan, "paper", exhibit="figure5b")]
    assert found == members
    found = {name.removeprefix("made-of.scores/") for name in parents(plan, "paper", exhibit="figure5a")}
    inits = ("llama/upper/nested", "llama/upper/alone", "scratch/upper/rand")
    assert found == {f"desnets/{path}/{budget}" for path in inits for budget in ("0", "512")}


def test_elastic_members_go_down_to_the_next(plan_of, study):
    study["chain"]["medium"]["elastic"] = True
    study["chain"]["small"]["elastic"] = {"smallest": {"layers": 1, "heads": 1, "hidden": 8}, "random": 2}
    study["initialisers"]["cut"] = {"kind": "linit", "method": "cut"}
    study["desnets"] = {"lower": {"shape": {"layers": 2, "heads": 2, "hidden": 16}}}
    plan = plan_of(study)

    def elastic(member):
        return plan.distill_settings(wildcards(ancestor="llama", member=member))["elastic"]

    assert elastic("large") is None
    assert elastic("medium").smallest == plan.study.chain["small"].shape
    assert (elastic("small").smallest.layers, elastic("small").random) == (1, 2)
    found = parents(plan, "assemble", ancestor="llama", desnet="lower", init="cut")
    assert found == {"tokenizer": "tokenizer", "source": "chain/llama/medium"}
    assert plan.assemble_settings(wildcards(ancestor="llama", desnet="lower", init="cut"))["alpha"] is None
    study["ancestors"]["llama"]["elastic"] = False
    study["initialisers"].pop("cut")
    assert plan_of(study).distill_settings(wildcards(ancestor="llama", member="medium"))["elastic"] is None


def test_exhibits_that_are_there_are_what_the_page_is_made_again_for(plan_of, study, tmp_path):
    plan = plan_of(study)
    assert plan.built_exhibits(wildcards()) == {}
    folder = tmp_path / plan.results / "paper/table3"
    folder.mkdir(parents=True)
    (folder / "table3.md").write_text("numbers")
    assert plan.built_exhibits(wildcards()) == {}  # not finished
    (folder / "manifest.json").write_text("{}")
    assert plan.built_exhibits(wildcards()) == {"table3": fingerprint(folder)}
