"""A study that says names, sizes, text and steps: what it is then."""

import json
from pathlib import Path
from types import SimpleNamespace as Wildcards

import pytest
import yaml

from colpipe.config.folders import model_folder, staged
from colpipe.config.loading import load_study, remarks
from colpipe.config.parts import Source
from colpipe.errors import ColpipeError
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.resources import resources_of_job
from tests.conftest import CHECKOUT

LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "max_position_embeddings": 640,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 96,
    "tie_word_embeddings": True,
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.jsonl").touch()
    write(Path("model"))


def write(folder: Path, **config) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA, **config}))
    return folder


@pytest.fixture
def brief() -> dict:
    text = {"source": {"path": "text.jsonl"}, "reader": "alpaca"}
    return {
        "study": "brief",
        "models": {"mine": {"source": {"path": "model"}}},
        "datasets": {"text": text},
        "corpora": {"text": {"dataset": "text"}},
        "instructions": {"questions": {"dataset": "text"}},
        "ancestors": {"mine": {"model": "mine"}},
        "chain": {
            "large": {"shape": {"layers": 5, "heads": 4, "kv_heads": 2, "hidden": 32, "ffn": 64}},
            "small": {"shape": {"layers": 3, "heads": 2, "kv_heads": 1, "hidden": 16, "ffn": 48}},
        },
        "desnets": {"between": {"shape": {"layers": 4, "heads": 2, "kv_heads": 1, "hidden": 16, "ffn": 48}}},
        "stages": {"distill": {"steps": 60}},
    }


def refused(study: dict) -> str:
    with pytest.raises(ColpipeError) as error:
        load_study(study, "my.yaml")
    return str(error.value)


def test_names_sizes_text_and_steps_are_a_study(brief):
    study = load_study(brief)
    architecture = study.architecture.model_dump(exclude={"config"})
    assert architecture == {"family": "llama", "vocabulary": 512, "positions": 640, "tied": True}
    assert study.tokenizer.model == "mine"
    assert study.ancestors["mine"].select == "rank"
    assert {member.start for member in study.chain.values()} == {"fit"}
    assert [(each.kind, each.method) for each in study.initialisers.values()] == [("linit", "fit")]
    assert study.stages.order.corpus == study.stages.fit.corpus == "text"
    assert study.stages.fit.max_length == 256 and study.stages.sft.instructions == "questions"
    distill = study.stages.distill
    assert (distill.objective, distill.data, distill.learning_rate, distill.schedule) == (
        "forward_kl",
        ["text"],
        5e-4,
        "cosine",
    )
    assert study.stages.recover is None and study.stages.pretrain is None
    assert load_study(study.model_dump(mode="json")) == study  # a resolved study is a study
    rules = [job.rule for job in Plan(study).jobs()]
    assert rules.count("distill") == 2 and rules.count("order") == 1


@pytest.mark.parametrize(
    ("architecture", "select"),
    [
        ({"tied": False}, "rotate"),
        ({"tied": None}, "rotate"),  # what the family does
        ({"family": "llama"}, "rotate"),
        ({"tied": True}, "rank"),
    ],
)
def test_principal_components_are_kept_where_the_head_is_not_tied(brief, architecture, select):
    for member in brief["chain"].values():
        member["shape"]["ffn"] = 16  # an untied head is larger
    brief["chain"]["large"]["shape"]["layers"] = 4
    brief["desnets"] = {}
    study = load_study({**brief, "architecture": architecture})
    assert study.ancestors["mine"].select == select


@pytest.mark.parametrize("without", ["instructions", "sft"])
def test_without_instructions_the_ancestor_is_taken_as_it_is(brief, without):
    del brief["instructions"]
    if without == "sft":
        brief["instructions"] = {"questions": {"dataset": "text"}}
        brief["stages"]["sft"] = None
    plan = Plan(load_study(brief))
    (job,) = (job for job in plan.jobs() if job.rule == "sft")
    assert set(job.parents) == {"model"} and plan.settings_of("sft", job.wildcards)["training"] is None
    assert resources_of_job(plan, "sft", job.wildcards).accelerators == 1
    assert plan.models["sft/mine"]["init"] == "as it is"
    assert not [job for job in plan.jobs() if job.rule == "prepare_instructions"]


def test_a_budget_brings_recovery(brief):
    assert load_study({**brief, "budgets": [0, "4k"]}).stages.recover.corpus == "text"


def test_what_a_study_says_itself_stays(brief):
    brief["architecture"] = {"positions": 64, "tied": False}
    brief["ancestors"]["mine"]["select"] = "first"
    brief["corpora"]["other"] = {"dataset": "text"}
    brief["stages"] |= {"distill": {"steps": 3, "data": ["questions"], "max_length": 64}, "sft": {"epochs": 1}}
    brief["chain"]["large"]["shape"] |= {"layers": 2}
    brief["chain"]["small"]["shape"] |= {"layers": 1}
    brief["desnets"] = {}
    study = load_study(brief)
    assert (study.architecture.positions, study.architecture.tied, study.architecture.vocabulary) == (64, False, 512)
    assert study.stages.fit.max_length == 64  # no more than positions
    assert study.ancestors["mine"].select == "first" and study.stages.order is None
    assert study.stages.distill.data == ["questions"]
    assert study.stages.sft.instructions == "questions"


def test_members_with_a_model_of_their_own_start_from_it_and_need_no_ranking(brief):
    write(Path("other"), num_hidden_layers=5, intermediate_size=64)
    brief["models"]["other"] = {"source": {"path": "other"}}
    brief["chain"]["large"]["model"] = "other"
    study = load_study(brief)
    assert [member.start for member in study.chain.values()] == ["pretrained", "fit"]
    assert study.ancestors["mine"].select == "even" and study.stages.order is None
    brief["ancestors"]["short"] = {"model": "mine", "members": ["small"], "desnets": []}
    assert [ancestor.select for ancestor in load_study(brief).ancestors.values()] == ["even", "rank"]


@pytest.mark.parametrize("architecture", [{}, {"tied": False}])  # of which one would be rotated
def test_without_a_corpus_nothing_is_measured_or_fitted_and_instructions_are_distilled_on(brief, architecture):
    del brief["corpora"]
    brief["architecture"] = architecture
    brief["chain"]["large"]["shape"] |= {"layers": 4, "ffn": 16}
    brief["desnets"]["between"]["shape"] |= {"layers": 3, "ffn": 16}
    brief["chain"]["small"]["shape"] |= {"layers": 2, "ffn": 16}
    study = load_study(brief)
    assert study.stages.distill.data == ["questions"]
    assert {member.start for member in study.chain.values()} == {"inherit"}
    assert study.ancestors["mine"].select == "even"
    assert study.stages.order is None and study.stages.fit is None
    assert {name: each.method for name, each in study.initialisers.items()} == {"linit": "nested"}
    assert load_study(study.model_dump(mode="json")) == study


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({"kind": "linit"}, "fit"),
        ({"kind": "linit", "alpha": 0.5}, "nested"),
        ({"kind": "linit", "alpha": "search"}, "nested"),
        ({"kind": "linit", "compensate": 0.5}, "nested"),
        ({"kind": "linit", "alpha": 0.5, "method": "aligned"}, "aligned"),
        ({"kind": "subset"}, "paper"),
        ({"kind": "rand"}, "paper"),
    ],
)
def test_initialisers_mix_where_they_say_how_much(brief, given, method):
    brief |= {"initialisers": {"it": given}, "perplexity": ["text"]}
    assert load_study(brief).initialisers["it"].method == method


def test_what_nothing_fits_has_no_stage(brief):
    brief["ancestors"]["mine"]["start"] = "inherit"
    brief["initialisers"] = {"nested": {"kind": "linit", "method": "nested"}}
    study = load_study(brief)
    assert {member.start for member in study.chain.values()} == {"fit"}  # whatever they say, the ancestor's is another
    assert study.stages.fit is None and not study.has_fitted()
    brief["corpora"]["other"] = {"dataset": "text"}
    brief["stages"]["fit"] = {"corpus": "other"}
    brief["stages"]["distill"]["data"] = ["text"]
    brief["perplexity"] = ["text"]
    assert Plan(load_study(brief)).settings_of("leakage", Wildcards())["trained"] == ["questions", "text"]
    del brief["initialisers"]
    assert Plan(load_study(brief)).settings_of("leakage", Wildcards())["trained"] == ["other", "questions", "text"]


@pytest.mark.parametrize(
    ("stage", "ancestor", "member", "expected"),
    [
        ({}, {}, {}, ["text"]),
        ({"objective": "minillm"}, {}, {}, ["questions", "text"]),
        ({}, {"objective": "seqkd"}, {}, ["questions", "text"]),
        ({}, {"objective": "seqkd"}, {"batch_size": 4}, ["questions", "text"]),
        ({}, {}, {"objective": "on_policy"}, ["questions", "text"]),
        ({"objective": "minillm"}, {}, {"objective": "jsd"}, ["text"]),
        ({}, {"objective": "minillm"}, {"objective": "jsd"}, ["text"]),
        ({}, {"data": ["questions"]}, {"objective": "minillm"}, ["questions"]),
        ({"data": ["questions"]}, {"objective": "seqkd"}, {"objective": "minillm"}, ["questions"]),
    ],
)
def test_each_objective_has_its_data(brief, stage, ancestor, member, expected):
    brief["stages"]["distill"] |= stage
    brief["ancestors"]["mine"]["distill"] = ancestor
    brief["chain"]["small"]["distill"] = member
    brief["initialisers"] = {"alone": {"kind": "distilled", "distill": member}}
    study = load_study(brief)
    assert study.distill_settings("mine", "small").data == expected
    assert study.desnet_distill_settings("mine", "alone").data == expected
    assert load_study(study.model_dump(mode="json")) == study


def test_the_papers_objective_has_prompts_among_its_data(brief):
    for key in ("desnets", "architecture"):
        brief[key] = {}
    brief["architecture"] = {"family": "llama", "vocabulary": 512, "positions": 640, "tied": True}
    study = load_study({**brief, "preset": "paper"})
    assert (study.stages.distill.objective, study.stages.distill.data) == ("minillm", ["questions", "text"])
    assert study.stages.fit is None


ARCHITECTURE = {"family": "llama", "vocabulary": 512, "positions": 640}


def test_beside_a_given_family_the_head_does_not_change_when_the_ancestor_is_fetched(brief):
    brief["models"]["mine"]["source"] = {"hub": "owner/mine"}
    brief["architecture"] = ARCHITECTURE
    brief["desnets"] = {}
    for member, layers in (("large", 4), ("small", 2)):
        brief["chain"][member]["shape"] |= {"layers": layers, "ffn": 16}
    before = load_study(brief)
    assert before.architecture.tied is None and not list(remarks(before))
    write(Path(staged("resources", "models", "mine", Source(hub="owner/mine"))))
    after = load_study(brief)
    assert after == before
    assert list(remarks(after)) == [
        "architecture.tied: not said, so that heads are untied, as llama has them, but that of models.mine is tied; "
        "tied: true keeps it, false says that another is meant"
    ]
    for tied in (True, False):
        assert not list(remarks(load_study({**brief, "architecture": {**ARCHITECTURE, "tied": tied}})))
    for member in brief["chain"].values():
        member["start"] = "scratch"  # with nothing of the ancestor's
    brief["stages"]["pretrain"] = {}
    assert not list(remarks(load_study(brief)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s["models"].update(mine={"source": {"hub": "owner/mine"}}),
            "my.yaml: architecture: family, vocabulary, positions, tied missing, and models.mine is not on this machine yet",
        ),
        (
            lambda s: (
                s["models"].update(mine={"source": {"hub": "owner/mine"}}),
                s.update(architecture={"family": "llama"}),
            ),
            "my.yaml: architecture: vocabulary, positions missing, and models.mine is not on this machine yet",
        ),
        (
            lambda s: s["models"].update(mine={"source": {"hub": "a/b/c"}}),
            "my.yaml: models.mine.source.hub: 'a/b/c' is no repository of the Hugging Face hub: give owner/name (Repo id",
        ),
        (
            lambda s: s["datasets"]["text"].update(source={"hub": "a b"}),
            "my.yaml: datasets.text.source.hub: 'a b' is no repository of the Hugging Face hub: give owner/name (Repo id",
        ),
        (
            lambda s: s.update(corpora={}, ancestors={"mine": {"model": "mine", "select": "rank"}}),
            "my.yaml: stages.order.corpus: missing, and nothing in the study says it; corpora: empty",
        ),
        (
            lambda s: s["chain"]["large"].update(start="fit") or s.update(corpora={}),
            "my.yaml: stages.fit.corpus: missing, and nothing in the study says it; corpora: empty",
        ),
        (
            lambda s: s["desnets"]["between"].update(alpha=0.3),
            "my.yaml: desnets.between.alpha: 0.3: nothing that it is built with mixes two neighbours (fit); leave it out",
        ),
        (
            lambda s: s["chain"]["large"]["shape"].update(layers=34),
            "my.yaml: chain.large.shape: layer is 34, more than the 6 of models.mine",
        ),
        (
            lambda s: s.update(architecture={"vocabulary": 50257}),
            "my.yaml: architecture.vocabulary: vocabulary is 50,257, more than the 512 of models.mine",
        ),
        (
            lambda s: (
                s.update(architecture={"tied": False}),
                s["ancestors"]["mine"].update(select="rank"),
                s["chain"]["large"]["shape"].update(layers=6, ffn=96),
            ),
            "my.yaml: chain.large: has 106,912 parameters, more than the 90,528 of models.mine, of which it starts as a "
            "subset; give it a smaller shape, or see whether architecture.tied (false, llama) is as there",
        ),
        (
            lambda s: s.update(initialisers={"fit": {"kind": "linit", "method": "fit", "alpha": 0.3}}),
            "my.yaml: initialisers.fit.alpha: 0.3: method 'fit' mixes nothing; leave it out",
        ),
        (
            lambda s: s.update(initialisers={"random": {"kind": "rand", "compensate": 0.3}}),
            "my.yaml: initialisers.random.compensate: 0.3: kind 'rand' mixes nothing; leave it out",
        ),
        (
            lambda s: s.update(initialisers={"random": {"kind": "rand", "method": "fit"}}),
            "my.yaml: initialisers.random.method: 'fit' is of linit; rand has none: leave it out",
        ),
        (lambda s: s["stages"]["distill"].update(data=[]), "my.yaml: stages.distill: data: []; name corpora or"),
        (
            lambda s: s.update(models={"mine": {"shape": {"layers": 6, "heads": 4, "hidden": 32}}}),
            "my.yaml: tokenizer.model: missing, and nothing in the study says it; models: mine",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_known_or_cannot_be_is_refused_in_one_line(brief, change, message):
    change(brief)
    assert message in refused(brief)


def test_the_manuals_example_is_a_study():
    manual = (CHECKOUT / "config/README.md").read_text()
    text = manual[manual.index("    study: mine\n") : manual.index("`preset: paper`")]
    smollm2 = {"vocab_size": 49152, "max_position_embeddings": 8192, "num_hidden_layers": 30, "hidden_size": 576}
    write(Path("my-model"), **smollm2, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536)
    Path("leads.json").touch()
    study = load_study(yaml.safe_load(text))
    assert study.parameters(study.desnets["100M"].shape) == pytest.approx(100e6, rel=0.01)


def test_a_family_without_a_table_is_refused(brief):
    write(Path("model"), model_type="mamba")
    assert refused(brief).startswith("my.yaml: model/config.json: model_type 'mamba' is none of gpt2, ")


@pytest.mark.parametrize("value", [None, 3, "x", [3], {"mine": None}, {"mine": 3}, {3: 3}, {"mine": {"start": [3]}}])
@pytest.mark.parametrize(
    "part",
    [
        *("architecture", "tokenizer", "models", "corpora", "instructions", "ancestors"),
        *("chain", "desnets", "initialisers", "budgets", "stages"),
    ],
)
def test_what_is_of_a_wrong_kind_is_refused_and_no_more(brief, part, value):
    try:
        load_study({**brief, part: value})
    except ColpipeError as error:
        assert str(error).startswith("study: ")


@pytest.mark.parametrize("place", ["path", "staged", "cache"])
def test_a_model_is_found_where_it_is(tmp_path, monkeypatch, place):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    source, cache = Source(hub="owner/mine"), tmp_path / "hub/models--owner--mine"
    folder = {"path": Path("model"), "staged": Path(staged("resources", "models", "mine", source))}.get(
        place, cache / "snapshots/abc"
    )
    assert model_folder("mine", source) is None
    write(folder)
    if place == "cache":
        (cache / "refs").mkdir()
        (cache / "refs/main").write_text("abc")
    assert model_folder("mine", Source(path="model") if place == "path" else source) == folder


def test_a_rotated_member_may_have_more_parameters_than_its_tied_ancestor(brief):
    """A rotation folds the final norm into the head, which is then one more matrix."""
    brief["architecture"] = {"tied": False}
    brief["chain"]["large"]["shape"].update(layers=6, ffn=96)
    study = load_study(brief, "my.yaml")
    assert study.ancestors["mine"].select == "rotate"
    assert study.parameters(study.chain["large"].shape) == 106_912
