"""Corpora that are mixtures, or that an ancestor writes: what they are made of, and what is refused."""

from types import SimpleNamespace as Wildcards

import pytest

from colpipe.config.corpora import unmixed
from colpipe.config.loading import load_study
from colpipe.config.needs import needs_of
from colpipe.errors import ColpipeError
from colpipe.pipeline.plan import Plan


@pytest.fixture(autouse=True)
def _here(inputs, monkeypatch):
    monkeypatch.chdir(inputs.parent)
    link = inputs.parent / "inputs"
    if not link.exists():
        link.symlink_to(inputs)


@pytest.fixture
def mixed(study) -> dict:
    """The tiny study with text that its ancestor writes, and with a mixture."""
    study["corpora"] |= {
        "own": {"written": {"openings": "stories", "opening": 8, "max_new_tokens": 31, "tokens": "4k"}},
        "both": {"data": {"stories": 7, "own": 3}},
    }
    return study


def test_the_shares_of_a_mixture_are_those_of_its_weights(mixed):
    corpora = load_study(mixed).corpora
    assert corpora["both"].shares == {"own": 0.3, "stories": 0.7}
    mixed["corpora"]["both"]["data"] = {"own": 0.3, "stories": 0.7}
    assert load_study(mixed).corpora["both"].shares == corpora["both"].shares


def test_the_first_ancestor_writes_where_nothing_is_said(mixed):
    assert load_study(mixed).corpora["own"].written.ancestor == "llama"
    mixed["ancestors"]["second"] = {**mixed["ancestors"]["llama"]}
    mixed["corpora"]["own"]["written"]["ancestor"] = "second"
    assert load_study(mixed).corpora["own"].written.ancestor == "second"


def test_what_is_mixed_is_distilled_on_once(mixed):
    mixed["stages"]["distill"].pop("data")
    assert load_study(mixed).stages.distill.data == ["both"]


def test_what_mixtures_are_made_of(mixed):
    mixed["corpora"]["all"] = {"data": {"both": 1, "more": 1}}
    mixed["corpora"]["more"] = {"dataset": "articles"}
    study = load_study(mixed)
    assert unmixed(study, ["boolq", "all", "own"]) == ["boolq", "stories", "own", "more"]


def test_jobs_of_corpora(mixed):
    plan = Plan(load_study(mixed))
    made = {job.folder.rpartition("/")[2]: job for job in plan.jobs([plan.data("both")]) if "/data/" in job.folder}
    assert {name: job.rule for name, job in made.items() if name in mixed["corpora"]} == {
        "stories": "prepare_corpus",
        "own": "write_corpus",
        "both": "mix_corpus",
    }
    assert made["own"].parents == {
        "writer": "results/tiny/sft/llama",
        "openings": "results/tiny/data/stories",
        "tokenizer": "results/tiny/tokenizer",
    }
    assert made["both"].parents == {
        "data.own": "results/tiny/data/own",
        "data.stories": "results/tiny/data/stories",
        "tokenizer": "results/tiny/tokenizer",
    }
    assert plan.settings_text("mix_corpus", made["both"].wildcards) == '{"shares": {"own": 0.3, "stories": 0.7}}'


def test_a_random_model_has_not_learned_to_answer_because_its_text_was_written_by_one_that_has(mixed):
    """But the writer is among the sources of what it is made of."""
    mixed["stages"]["recover"]["corpus"] = "both"
    plan = Plan(load_study(mixed))
    for path, learned in (("desnets/scratch/upper/rand/512", False), ("desnets/llama/upper/nested/512", True)):
        settings = plan.settings_of("publish", Wildcards(model=path))
        assert (settings["instructed"], settings["template"]) == (learned, "paper" if learned else "own")
        assert plan.fetched["llama"] in settings["sources"]
        assert "sft/llama" in plan.inputs_of("publish", Wildcards(model=path))["made-of"]


def test_openings_without_training_documents_are_refused(mixed):
    mixed["datasets"]["tests"] = {**mixed["datasets"]["articles"], "validation": 0, "test": 1}
    mixed["corpora"]["tests"] = {"dataset": "tests"}
    mixed["corpora"]["own"]["written"]["openings"] = "tests"
    with pytest.raises(ColpipeError, match=r"own.written.openings: tests has no training documents \(datasets.tests\)"):
        load_study(mixed)


def test_what_an_initialiser_distils_on_is_looked_through_for_test_rows(mixed):
    before = Plan(load_study(mixed)).settings_of("leakage", Wildcards())["trained"]
    mixed["corpora"]["more"] = {"dataset": "articles"}
    mixed["initialisers"]["alone"] = {"kind": "distilled", "distill": {"data": ["more"]}}
    assert Plan(load_study(mixed)).settings_of("leakage", Wildcards())["trained"] == sorted([*before, "more"])


def test_only_jobs_that_use_weights_are_told_of_them(mixed):
    mixed["chain"]["medium"]["distill"] = {"signal": 4, "data": {"stories": 3, "own": 1}}
    large, medium = ({"ancestor": "llama", "member": member} for member in ("large", "medium"))
    plan = Plan(load_study(mixed))
    assert '"data": ["describe", "stories"]' in plan.settings_text("distill", Wildcards(**large))
    assert '"data": {"own": 1.0, "stories": 3.0}' in plan.settings_text("distill", Wildcards(**medium))
    assert list(plan.inputs_of("distill", Wildcards(**medium))["data"]) == ["own", "stories"]
    teacher = Wildcards(ancestor="llama", teacher="large")
    assert plan.settings_of("teacher_signal", teacher)["weights"] == {"own": 1, "stories": 3}
    mixed["chain"]["medium"]["distill"] = {"signal": 4}
    assert "weights" not in Plan(load_study(mixed)).settings_of("teacher_signal", teacher)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(bad={}), "corpora.bad: names none of dataset, written, data; give exactly one"),
        (
            lambda c: c["both"].update(dataset="articles"),
            "corpora.both: names dataset and data of dataset, written, data; give exactly one",
        ),
        (lambda c: c["both"]["data"].update(own=0), "corpora.both.data.own: 0: input should be greater than 0"),
        (lambda c: c["both"]["data"].update(own=True), "corpora.both.data.own: True: input should be a valid number"),
        (lambda c: c["both"]["data"].update(wiki=1), "corpora.both.data.wiki: 'wiki' is not in corpora (stories, own,"),
        (lambda c: c["own"]["written"].update(openings="x"), "corpora.own.written.openings: 'x' is not in corpora"),
        (lambda c: c["own"]["written"].update(ancestor="x"), "corpora.own.written.ancestor: 'x' is not in ancestors ("),
        (
            lambda c: c["both"]["data"].update(both=1),
            "corpora.both: is made of itself (both → both); take one of these out of another",
        ),
        (
            lambda c: c["own"]["written"].update(openings="both"),
            "corpora.own: is made of itself (own → both → own); take one of these out of another",
        ),
        (
            lambda c: c.update(twice={"data": {"both": 1, "stories": 1}}),
            "corpora.twice.data: holds stories more than once, by mixtures in it; no document may be there twice",
        ),
        (
            lambda c: c["own"]["written"].update(max_new_tokens=250),
            "corpora.own.written.max_new_tokens: 250 after openings of 8 are more than the 256 positions of models.llama; "
            "at most 248 are allowed",
        ),
    ],
)  # fmt: skip
def test_corpora_that_are_refused(mixed, change, message):
    mixed["ancestors"]["llama"].update(bridge="bridge")
    change(mixed["corpora"])
    if "positions" in message:  # known where the ancestor is of the chain's family
        mixed["architecture"]["family"] = "llama"
    with pytest.raises(ColpipeError) as error:
        load_study(mixed, "my.yaml")
    assert [line for line in str(error.value).splitlines() if line.startswith(f"my.yaml: {message}")]


def test_each_circle_is_told_once(mixed):
    mixed["corpora"]["own"]["written"]["openings"] = "both"
    with pytest.raises(ColpipeError) as error:
        load_study(mixed)
    assert str(error.value).count("is made of itself") == 1


def test_who_writes_may_not_have_learnt_from_it(mixed):
    mixed["models"]["home"] = {"shape": {"layers": 4, "heads": 4, "hidden": 32}}
    mixed["ancestors"] = {"home": {"model": "home", "select": "even"}}
    load_study(mixed)
    mixed["stages"]["pretrain"]["corpus"] = "both"
    with pytest.raises(ColpipeError, match=r"corpora.own: is made of itself \(own → both → own\)"):
        load_study(mixed)


@pytest.mark.parametrize(("name", "kind"), [("own", "text that an ancestor writes"), ("both", "a mixture")])
def test_a_tokenizer_is_trained_on_a_data_set(mixed, name, kind):
    mixed["tokenizer"]["train"] = name
    with pytest.raises(
        ColpipeError, match=f"tokenizer.train: '{name}' is {kind}, which is tokenised before it is there"
    ):
        load_study(mixed)


def test_weights_are_not_for_objectives_that_answer_prompts(mixed):
    mixed["stages"]["distill"].update(data={"describe": 1, "own": 1}, objective="seqkd")
    with pytest.raises(ColpipeError, match=r"data: \{.*\} are weights; objective 'seqkd' answers prompts: give a list"):
        load_study(mixed)
    mixed["stages"]["distill"].update(data={"stores": 1}, objective="jsd")
    with pytest.raises(ColpipeError, match=r"stages.distill.data.stores: 'stores' is in neither corpora nor"):
        load_study(mixed)


def test_students_that_share_a_cache_have_the_same_weights(mixed):
    mixed["ancestors"]["llama"]["teacher"] = "ancestor"
    mixed["stages"]["distill"].update(signal=4, data={"stories": 1, "own": 1})
    load_study(mixed)
    mixed["chain"]["small"]["distill"] = {"data": {"stories": 2, "own": 1}}
    with pytest.raises(ColpipeError, match="the students of the ancestor want its cached log-probabilities"):
        load_study(mixed)


def test_needs_are_passed_on_to_what_a_corpus_is_made_of(mixed):
    mixed["stages"]["recover"].update(corpus="both")
    mixed["budgets"] = [0, 10_000]
    found = {
        (name, need.split): (need.least, need.why)
        for name, given in needs_of(load_study(mixed)).items()
        for need in given
    }
    why = "stages.recover with its budget 10,000"
    assert found["both", "train"] == (10_000, why)
    assert found["own", "train"] == (3000, f"{why}, 0.3 of corpora.both,")
    assert found["stories", "train"] == (7000, f"{why}, 0.7 of corpora.both,")
    mixed["stages"]["recover"].update(corpus="own", max_length=32)
    mixed["stages"]["pretrain"]["tokens"] = 64
    mixed["budgets"] = [0, 4000]
    needs = needs_of(load_study(mixed))
    [least] = [need.least for need in needs["stories"] if need.split == "train"]
    assert least == 100 * 9  # 4000 tokens in documents of 40, each with an opening of 8 and its end


def test_more_than_will_be_written_is_refused_before_anything_runs(mixed):
    mixed["stages"]["recover"].update(corpus="both")
    mixed["budgets"] = [0, 20_000]
    message = (
        r"corpora.own.written.tokens: 4,000 are less than the 6,000 that stages.recover with its budget 20,000, 0.3 of "
        r"corpora.both, needs; raise it, or lower that"
    )
    with pytest.raises(ColpipeError, match=message):
        load_study(mixed)
