import json
import shlex
from types import SimpleNamespace as wildcards

import pytest

from colpipe.config.loading import load_study
from colpipe.errors import ColpipeError
from colpipe.pipeline.graph import find_job, one_of
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.rules import RULES


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
    assert plan.settings_of("teacher_signal", wildcards(ancestor="llama", teacher="origin"))["top_k"] == 8


def test_overrides_of_ancestor_and_member(plan_of, study):
    study["ancestors"]["llama"]["distill"] = {"objective": "minillm", "steps": 7, "rollout": {"size": 64}}
    study["chain"]["small"]["distill"] = {"steps": 9, "rollout": {"epochs": 2}}
    plan = plan_of(study)
    settings = plan.settings_of("distill", wildcards(ancestor="llama", member="small"))["training"]
    assert (settings.objective, settings.steps, settings.rollout.size, settings.rollout.epochs) == ("minillm", 9, 64, 2)
    assert plan.settings_of("distill", wildcards(ancestor="llama", member="large"))["training"].steps == 7


def test_pretrained_and_scratch_members_are_fine_tuned_first(plan_of, study):
    study["models"]["public"] = {"shape": study["chain"]["large"]["shape"]}
    study["chain"]["large"].update(start="pretrained", model="public")
    study["chain"]["medium"].update(start="scratch")
    plan = plan_of(study)
    assert parents(plan, "distill", ancestor="llama", member="large")["student"] == "sft/public"
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


def test_chains_of_one_model_that_are_selected_alike_are_cut_from_one_ordered_model(plan_of, study):
    """Several ancestors may differ in how their members start, are taught or chosen."""
    own = {"model": "bridge", "start": "inherit"}
    study["ancestors"] = {
        "even": {**own, "select": "even"}, "one": {**own, "select": "rank"}, "two": {**own, "select": "rank"},
    }  # fmt: skip
    study["stages"]["order"] = {"corpus": "stories"}
    plan = plan_of(study)
    found = {
        name: parents(plan, "distill", ancestor=name, member="large").get("ordered") for name in study["ancestors"]
    }
    assert found == {"even": None, "one": "ordered/one", "two": "ordered/one"}


def test_a_recovery_reads_the_ancestor_where_a_share_of_its_quality_ends_it(plan_of, study):
    """Others are what they were; random DesNets, which all ancestors share, are measured against the first."""
    study["models"]["gpt2"] = {"shape": {"layers": 5, "heads": 4, "hidden": 32}}
    study["ancestors"]["gpt2"] = {"model": "gpt2"}
    names = {"desnet": "upper", "budget": "512"}

    def read(ancestor, init="nested"):
        return parents(plan, "recover", ancestor=ancestor, init=init, **names)

    plan = plan_of(study)
    before = plan.settings_text("recover", wildcards(ancestor="llama", init="nested", **names))
    assert read("llama") == {"model": "desnets/llama/upper/nested/0", "corpus": "data/stories"}
    assert "stop_at" not in before
    study["stages"]["recover"]["stop_at"] = 3.5
    plan = plan_of(study)
    assert "ancestor" not in read("llama")
    after = json.loads(plan.settings_text("recover", wildcards(ancestor="llama", init="nested", **names)))
    assert after.pop("stop_at") == 3.5 and after == json.loads(before)
    study["stages"]["recover"]["stop_at"] = 0.95
    plan = plan_of(study)
    assert read("llama")["ancestor"] == "bridges/llama" and read("gpt2")["ancestor"] == "sft/gpt2"
    assert read("scratch", "rand")["ancestor"] == "bridges/llama"


def test_a_random_model_does_not_descend_from_what_it_is_measured_against(plan_of, study):
    study["stages"]["recover"]["stop_at"] = 0.95
    plan, path = plan_of(study), "desnets/scratch/upper/rand/512"
    assert "results/tiny/bridges/llama" in plan.lineage(f"results/tiny/{path}")  # it waits for it
    made_of = plan.inputs_of("publish", wildcards(model=path))["made-of"]
    assert not {"bridges/llama", "sft/llama"} & set(made_of) and "desnets/scratch/upper/rand/0" in made_of
    settings = plan.settings_of("publish", wildcards(model=path))
    assert settings["template"] == "own" and plan.fetched["llama"] not in settings["sources"]
    chain = plan.settings_of("publish", wildcards(model="desnets/llama/upper/nested/512"))
    assert chain["template"] == "paper" and plan.fetched["llama"] in chain["sources"]


def test_studies_share_what_has_the_same_source(plan_of, study):
    first = plan_of(study).fetched["llama"]
    study["study"] = "other"
    assert plan_of(study).fetched["llama"] == first
    study["models"]["llama"]["source"]["files"] = ["*.json", "*.safetensors"]
    assert plan_of(study).fetched["llama"] != first


def test_the_report_reads_the_study_in_its_order(plan_of, study):
    names = {"large": "z", "medium": "k", "small": "a"}
    study["chain"] = {names[name]: member for name, member in study["chain"].items()}
    settings = json.loads(plan_of(study).settings_text("report"))
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
    settings = plan.settings_of("distill_desnet", wildcards(ancestor="llama", desnet="lower", init="alone"))
    assert settings["shape"] == plan.study.desnets["lower"].shape
    training = settings["training"]
    assert (training.objective, training.steps, training.signal) == ("seqkd", 3, None)
    found = parents(plan, "distill_desnet", ancestor="llama", desnet="lower", init="beside")
    assert found["teacher"] == "chain/llama/large"  # of medium, the larger neighbour
    assert plan.allowed("distill_desnet") == {"init": "alone|beside"}
    assert plan.allowed("assemble") == {"init": "nested|rand"}


def test_an_ancestor_may_serve_some_desnets_only(plan_of, study):
    study["ancestors"]["again"] = {**study["ancestors"]["llama"], "desnets": ["upper"], "initialisers": ["nested"]}
    study["desnets"]["lower"]["budgets"] = [0]
    models = plan_of(study).models
    assert [path for path in models if path.startswith("desnets/again")] == [
        "desnets/again/upper/nested/0",
        "desnets/again/upper/nested/512",
    ]
    assert [path for path in models if path.startswith("desnets/llama/lower")] == ["desnets/llama/lower/nested/0"]


def test_a_chain_of_fewer_members(plan_of, study):
    study["ancestors"]["short"] = {**study["ancestors"]["llama"], "members": ["large", "small"]}
    plan = plan_of(study)
    assert parents(plan, "distill", ancestor="short", member="small")["teacher"] == "chain/short/large"
    assert "chain/short/medium" not in plan.models and "chain/llama/medium" in plan.models
    found = parents(plan, "assemble", ancestor="short", desnet="lower", init="nested")
    assert (found["smaller"], found["larger"]) == ("chain/short/small", "chain/short/large")
    whole, short = (
        plan.settings_of("assemble", wildcards(ancestor=name, desnet="lower", init="nested"))
        for name in ("llama", "short")
    )
    assert whole["alpha"] < short["alpha"]  # the larger neighbour is further away
    study["ancestors"]["short"]["members"] = ["large", "tiny"]
    with pytest.raises(ColpipeError, match=r"ancestors.short.members.1: 'tiny' is not in chain"):
        plan_of(study)


def test_budgets_and_tasks_by_ancestor_and_initialiser(plan_of, study):
    study["tasks"]["other"] = {"instructions": "describe", "fine_tune": None, "max_new_tokens": 4}
    study["initialisers"]["nested"] |= {"budgets": [0], "tasks": ["other"]}
    study["ancestors"]["llama"]["tasks"] = ["boolq"]
    study["initialisers"]["rand"] |= {"budgets": [512]}
    plan = plan_of(study)
    built = [path for path in plan.models if path.startswith("desnets/")]
    assert built == [
        f"desnets/{path}"
        for desnet in ("upper", "lower")
        for path in (f"llama/{desnet}/nested/0", f"scratch/{desnet}/rand/512")
    ]
    tasks = {path: list(plan.settings_of("evaluate", wildcards(model=path))["tasks"]) for path in plan.models}
    assert tasks["desnets/llama/upper/nested/0"] == []  # of those of the ancestor
    assert tasks["desnets/scratch/upper/rand/512"] == ["boolq", "other"]
    assert tasks["chain/llama/small"] == tasks["bridges/llama"] == ["boolq"]
    assert "task" not in plan.inputs_of("evaluate", wildcards(model="desnets/llama/upper/nested/0"))


def test_texts_are_continued_as_the_study_says_and_a_card_reads_the_ancestors_too(plan_of, study):
    scored, published = wildcards(model="chain/llama/small"), "desnets/llama/upper/nested/0"
    found = plan_of(study).settings_of("evaluate", scored)
    assert (len(found["continued"]), found["continued_tokens"]) == (5, 48)
    beside = {
        model: parents(plan_of(study), "publish", model=model).get("origin-score")
        for model in (published, "chain/llama/small", "desnets/scratch/upper/rand/0")
    }
    assert list(beside.values()) == ["scores/bridges/llama", "scores/bridges/llama", None]
    study["stages"]["evaluate"] = {"continued": []}
    assert plan_of(study).settings_of("evaluate", scored).keys() == {"tasks", "precision"}
    assert "origin-score" not in parents(plan_of(study), "publish", model=published)


def test_a_stack_reads_a_member_and_its_ancestor(plan_of, study):
    study["stacks"] = {"fslm": {"ancestor": "llama", "member": "small", "tasks": ["boolq"]}}
    plan = plan_of(study)
    assert parents(plan, "stack", stack="fslm") == {
        "model": "chain/llama/small",
        "teacher": "bridges/llama",
        "task.boolq": "data/boolq",
    }
    assert plan.models["stacks/fslm"]["params"] == 4 * study_parameters(plan, "small")
    assert f"{plan.results}/scores/stacks/fslm/manifest.json" in plan.manifests_of("scores")
    study["stacks"]["fslm"] |= {"member": "huge", "tasks": ["none"]}
    with pytest.raises(
        ColpipeError, match=r"stacks.fslm.member: 'huge' is not in chain(.|\n)*stacks.fslm.tasks.0: 'none'"
    ):
        plan_of(study)


def study_parameters(plan, member: str) -> int:
    return plan.study.parameters(plan.study.chain[member].shape)


def test_elastic_members_go_down_to_the_next(plan_of, study):
    study["chain"]["medium"]["elastic"] = True
    study["chain"]["small"]["elastic"] = {"smallest": {"layers": 1, "heads": 1, "hidden": 8}, "random": 2}
    study["initialisers"]["cut"] = {"kind": "linit", "method": "cut"}
    study["desnets"] = {"lower": {"shape": {"layers": 2, "heads": 2, "hidden": 16}}}
    plan = plan_of(study)

    def elastic(member):
        return plan.settings_of("distill", wildcards(ancestor="llama", member=member))["elastic"]

    assert elastic("large") is None
    assert elastic("medium").smallest == plan.study.chain["small"].shape
    assert (elastic("small").smallest.layers, elastic("small").random) == (1, 2)
    found = parents(plan, "assemble", ancestor="llama", desnet="lower", init="cut")
    assert found == {"tokenizer": "tokenizer", "source": "chain/llama/medium"}
    assert plan.settings_of("assemble", wildcards(ancestor="llama", desnet="lower", init="cut"))["alpha"] is None
    study["ancestors"]["llama"]["elastic"] = False
    study["initialisers"].pop("cut")
    assert plan_of(study).settings_of("distill", wildcards(ancestor="llama", member="medium"))["elastic"] is None


def test_the_lineage_of_a_desnet_is_all_that_it_descends_from_in_order(plan_of, study):
    plan = plan_of(study)
    found = [
        folder.removeprefix("results/tiny/") for folder in plan.lineage("results/tiny/desnets/llama/upper/nested/512")
    ]
    assert found[-4:] == [
        "chain/llama/large", "chain/llama/medium", "desnets/llama/upper/nested/0", "desnets/llama/upper/nested/512"
    ]  # fmt: skip
    data = {"tokenizer", "data/stories", "data/describe", plan.datasets["articles"]}
    ancestor = {plan.fetched["llama"], "sft/llama", "answers/llama", "pretrained/bridge", "bridges/llama"}
    assert set(found[:-4]) == data | ancestor
    for position, folder in enumerate(found):
        parents = find_job(RULES, plan, f"results/tiny/{folder}").parents.values()
        assert {parent.removeprefix("results/tiny/") for parent in parents} <= {*found[:position]}


def test_a_random_desnet_descends_from_no_ancestor(plan_of, study):
    plan = plan_of(study)
    found = plan.lineage("results/tiny/desnets/scratch/lower/rand/512")
    assert set(found) == {
        plan.datasets["articles"],
        *(f"results/tiny/{path}" for path in ("tokenizer", "data/stories")),
        *(f"results/tiny/desnets/scratch/lower/rand/{budget}" for budget in ("0", "512")),
    }


def test_every_folder_of_a_study_is_made_by_one_rule(plan_of, study):
    study["initialisers"]["alone"] = {"kind": "distilled"}
    study["stages"]["order"] = {"corpus": "stories"}
    study["ancestors"]["llama"] |= {"select": "rank", "distill": {"signal": 8}}
    plan = plan_of(study)
    rules = {
        find_job(RULES, plan, folder).rule
        for path in plan.models
        for folder in plan.lineage(f"results/tiny/{path}")
        if folder.startswith("results/")
    }
    assert rules == {
        "train_tokenizer", "prepare_corpus", "prepare_instructions", "pretrain", "sft", "bridge_answers", "bridge", "order",
        "teacher_signal", "distill", "distill_desnet", "assemble", "recover",
    }  # fmt: skip


def test_a_licence_is_no_setting_of_any_job(plan_of, study):
    def settings(plan):
        wildcard = wildcards(corpus="stories", instructions="boolq", model="desnets/llama/upper/nested/0")
        return [
            plan.settings_text(rule, wildcard)
            for rule in ("prepare_corpus", "prepare_instructions", "report", "publish")
        ]

    before = settings(plan_of(study))
    study["datasets"]["articles"]["license"] = "cc-by-sa-4.0"
    study["models"]["llama"] |= {"license": "own", "terms": "https://example.org/own"}
    after = settings(plan_of(study))
    assert before[:3] == after[:3] and before[3] != after[3]
    assert "cc-by-sa-4.0" in after[3] and "https://example.org/own" in after[3]


def test_a_card_waits_for_the_scores_of_the_ancestor_where_likelihoods_are_compared(plan_of, study):
    models = ["desnets/llama/upper/nested/0", "desnets/scratch/upper/rand/0", "chain/llama/small"]
    assert all("compared" not in parents(plan_of(study), "publish", model=model) for model in models)
    study["tasks"]["boolq"]["likelihood"] = True
    plan = plan_of(study)
    assert {parents(plan, "publish", model=model)["compared"] for model in models} == {"scores/bridges/llama"}
    assert plan.compared_with("bridges/llama") == "bridges/llama"
    study["models"]["gpt2"] = {"shape": {"layers": 5, "heads": 4, "hidden": 32}}
    study["ancestors"]["gpt2"] = {"model": "gpt2"}
    plan = plan_of(study)
    assert plan.compared_with("desnets/gpt2/upper/nested/0") == plan.compared_with("sft/gpt2") == "sft/gpt2"
    assert plan.compared_with("desnets/scratch/upper/rand/0") == "bridges/llama"  # of the first ancestor


def test_the_report_shows_the_papers_tables_that_are_there(plan_of, study, tmp_path):
    study["paper"] = {"gpt2-xl": "llama", "linit": "nested", "DesNet-138M": "lower", "DesNet-380M": "upper"}
    plan = plan_of(study)
    asked = plan.parents("report")
    folder = tmp_path / plan.results / "paper/table7"
    folder.mkdir(parents=True)
    (folder / "table7.md").write_text("numbers")
    assert plan.reported() == asked  # not finished
    (folder / "manifest.json").write_text("{}")
    assert plan.reported() == [*asked, ("paper.table7", "results/tiny/paper/table7")]


def test_a_module_may_lie_elsewhere(inputs, tmp_path, monkeypatch, study):
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    plan = Plan(load_study(study), place=lambda folder: f"sub/{folder}")
    assert plan.folder("distill", wildcards(ancestor="llama", member="small")) == "sub/results/tiny/chain/llama/small"
    assert plan.start("llama").startswith("sub/resources/models/llama-")
    written = plan.declared(f"{plan.start('llama')}/manifest.json")
    assert written == f"{plan.start('llama').removeprefix('sub/')}/manifest.json"
    job = find_job(RULES, plan, "sub/results/tiny/chain/llama/small")
    assert job.rule == "distill" and job.parents["teacher"] == "sub/results/tiny/chain/llama/medium"
    assert find_job(RULES, plan, plan.start("llama")).rule == "fetch_model"
    output, small = ["sub/results/tiny/chain/llama/small/manifest.json"], wildcards(ancestor="llama", member="small")
    assert "--work sub/results/tiny/work/chain/llama/small" in plan.where("distill", small, output)


def test_only_what_trains_runs_on_several_devices_or_nodes(plan_of, study):
    here, far = plan_of(study), plan_of(study)
    far.remote = True

    def flags(plan, rule, **resources) -> str:
        return " ".join(plan.devices(rule, AttributeDict(runtime=30, **resources)))

    assert flags(here, "distill", gpu=0) == "--devices 0"
    assert flags(here, "distill", gpu=2) == "--devices 2 --parallel"
    assert flags(here, "evaluate", gpu=2) == "--devices 2"
    assert flags(far, "distill", gpu=0, nodes=2) == "--devices 0 --parallel --granted --minutes 30"  # processes of CPUs
    assert flags(far, "distill", gpu=0, nodes=2, gres="npu:ascend910b:4").startswith("--devices 8 --parallel")
    assert flags(far, "evaluate", gpu=1) == "--devices 1 --granted --minutes 30"


class AttributeDict(dict):
    """Resources as Snakemake gives them, by attribute and by key."""

    __getattr__ = dict.__getitem__


def test_jobs_that_prepare_data_are_told_what_is_needed_of_them(plan_of, study):
    plan = plan_of(study)

    def runtime(folder: str) -> dict:
        job = find_job(RULES, plan, f"results/tiny/{folder}")
        return json.loads(shlex.split(plan.where(job.rule, job.wildcards, [f"{job.folder}/manifest.json"]))[-1])

    assert runtime("data/stories")["needs"] == [
        ["train", 1024, "stages.pretrain with its tokens 1,024"],
        ["validation", 64, "stages.pretrain.max_length 64"],
    ]
    assert "needs" not in runtime("sft/llama")
    study["stages"]["recover"]["max_length"] = 64  # prepares nothing again
    stories = wildcards(corpus="stories")
    assert plan.settings_text("prepare_corpus", stories) == plan_of(study).settings_text("prepare_corpus", stories)


MEDIUM, LARGE = "results/tiny/chain/llama/medium", "results/tiny/chain/llama/large"


def test_jobs_that_cut_one_model_share_its_streams(plan_of, study):
    """A member and a DesNet are cut out of the medium member, a DesNet alone out of the large one."""
    study["initialisers"]["fit"] = {"kind": "linit", "method": "fit"}
    del study["chain"]["small"]["start"]
    plan = plan_of(study)

    def streams(folder: str) -> str | None:
        job = find_job(RULES, plan, f"results/tiny/{folder}")
        words = shlex.split(plan.where(job.rule, job.wildcards, [f"{job.folder}/manifest.json"]))
        return json.loads(words[-1]).get("streams")

    shared = "results/tiny/work/streams"
    between = next(job.folder for job in plan.jobs() if plan.inputs_of(job.rule, job.wildcards).get("source") == MEDIUM)
    assert streams(between.removeprefix("results/tiny/")) == streams("chain/llama/small") == shared
    alone = next(job.folder for job in plan.jobs() if plan.inputs_of(job.rule, job.wildcards).get("source") == LARGE)
    assert streams(alone.removeprefix("results/tiny/")) is None
    assert streams("chain/llama/large") is None
