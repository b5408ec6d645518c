"""The paper's choices: its studies are what they were before the defaults were others."""

import pytest

from colpipe.config.loading import load_study, read_study
from colpipe.config.presets import with_preset
from colpipe.errors import ColpipeError
from colpipe.training.arguments import warmup_steps
from tests.conftest import CHECKOUT

# Of these studies at the commit before there were presets, where they said nothing themselves.
MINILLM = {
    "objective": "minillm",
    "learning_rate": 5e-6,
    "schedule": "constant",
    "warmup": 0.02,  # 100 of 5000 steps
    "keep": "rouge_l",
}
OWN = {"learning_rate": 1e-3, "schedule": "cosine", "warmup": 6, "keep": "last"}
SELECTS = {
    "gpt2": dict.fromkeys(("gpt2-xl", "llama3-8b", "qwen3-4b", "gpt2-xl-direct"), "first")
    | {"gpt2-xl-inherited": "rank"},
    "pythia": {"pythia-1.4b": "first", "pythia-1.4b-short": "first"},
    "qwen3": {"qwen3-4b": "first"},
    "paper-micro": dict.fromkeys(("xl", "xl-direct", "xl-short", "smollm2"), "first") | {"xl-inherited": "even"},
}
TIED = {"gpt2": True, "pythia": False, "qwen3": True, "paper-micro": True}
STAGES = {
    "gpt2": {"sft", "answers", "bridge", "order", "distill", "recover"},
    "pythia": {"sft", "bridge", "distill", "recover"},
    "qwen3": {"sft", "bridge", "distill", "recover"},
    "paper-micro": {"pretrain", "sft", "answers", "bridge", "distill", "recover"},
}


@pytest.mark.parametrize("name", SELECTS)
def test_the_papers_studies_are_what_they_were(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nothing is fetched here
    study = load_study(read_study(CHECKOUT / f"config/{name}.yaml"))
    expected = MINILLM | (OWN if name == "paper-micro" else {})
    assert {key: getattr(study.stages.distill, key) for key in expected} == expected
    own = 4 if name == "paper-micro" else 0
    assert (study.stages.recover.evaluations, study.stages.recover.keep) == (own, "last")
    assert study.stages.distill.rollout.size == (24 if name == "paper-micro" else 256)
    assert {name: ancestor.select for name, ancestor in study.ancestors.items()} == SELECTS[name]
    methods = {key: each.method for key, each in study.initialisers.items()}
    assert {key for key, method in methods.items() if method != "paper"} <= {"nested", "lossless", "aligned"}
    assert methods["linit"] == "paper"
    assert study.architecture.is_tied == TIED[name]
    assert {stage for stage, settings in study.stages if settings is not None} == STAGES[name] | {"evaluate", "export"}
    assert study.stages.evaluate.precision == "float32"


def test_a_studys_own_keys_come_before_those_of_its_preset(study):
    given = {**study, "preset": "paper", "ancestors": {"a": {"model": "m", "select": "rank"}, "b": {"model": "m"}}}
    found = with_preset(given)
    assert found["stages"]["distill"]["objective"] == "reverse_kl"
    assert found["stages"]["distill"]["learning_rate"] == 5e-6
    assert {name: ancestor["select"] for name, ancestor in found["ancestors"].items()} == {"a": "rank", "b": "even"}
    assert found["architecture"]["vocabulary"] == 512 and found["architecture"]["tied"] is None
    assert "select" not in given["ancestors"]["b"]  # the study itself stays as it is
    assert with_preset(found) == found


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The tiny study's inputs, which are not looked at."""
    monkeypatch.chdir(tmp_path)
    for name in ("llama", "boolq", "articles.json"):
        (tmp_path / "inputs" / name).mkdir(parents=True)


@pytest.mark.usefixtures("here")
def test_desnets_are_made_by_the_papers_method_where_nothing_says_how(study):
    del study["initialisers"]
    loaded = load_study({**study, "preset": "paper"})
    assert [(name, each.kind, each.method) for name, each in loaded.initialisers.items()] == [
        ("linit", "linit", "paper")
    ]
    assert {name for name, *_ in loaded.builds_of("llama")} == {"upper", "lower"}
    assert load_study(loaded.model_dump(mode="json")) == loaded


@pytest.mark.parametrize("section", ["ancestors", "chain", "initialisers"])
def test_a_section_that_is_left_out_stays_so(study, section):
    del study[section]
    assert section not in with_preset({**study, "preset": "paper"})


@pytest.mark.usefixtures("here")
def test_fewer_steps_than_the_papers_warm_up_for_less(study):
    for key in ("warmup", "objective", "learning_rate"):
        del study["stages"]["distill"][key]
    settings = load_study({**study, "preset": "paper"}).stages.distill
    assert (settings.steps, warmup_steps(settings.warmup, settings.steps)) == (4, 0)
    assert warmup_steps(settings.warmup, 5000) == 100


@pytest.mark.usefixtures("here")
def test_alpha_goes_with_the_papers_method(study):
    study["initialisers"] = {"half": {"kind": "linit", "alpha": 0.5}}
    assert load_study({**study, "preset": "paper"}).initialisers["half"].method == "paper"


@pytest.mark.parametrize("stages", [None, [], "paper", {"distill": None}])
def test_what_is_of_a_wrong_kind_is_left_to_be_refused(study, stages):
    assert with_preset({**study, "preset": "paper", "stages": stages})["stages"] == stages


def test_an_unknown_preset_is_refused(study):
    for preset in ("papers", ["paper"]):
        with pytest.raises(ColpipeError, match=r"study: preset: .*: input should be 'paper'"):
            load_study({**study, "preset": preset})
