"""What a study needs of its data is what its stages read, and too little is found when the data are prepared."""

import json

import pytest

from colpipe.config.loading import load_study
from colpipe.config.needs import JobRuntime, Need, needs_of, require_enough, shortages
from colpipe.config.parts import Runtime
from colpipe.errors import ColpipeError


@pytest.fixture
def needs(study, inputs, monkeypatch):
    """Function from changes to the study to (least, why) by (name, split)."""
    monkeypatch.chdir(inputs.parent)
    link = inputs.parent / "inputs"
    if not link.exists():
        link.symlink_to(inputs)

    def find(change=lambda study: None) -> dict:
        change(study)
        found = needs_of(load_study(study))
        return {(name, need.split): (need.least, need.why) for name, given in found.items() for need in given}

    return find


def test_the_tiny_study_needs(needs):
    assert {place: least for place, (least, _) in needs().items()} == {
        ("stories", "train"): 1024,  # tokens of the pre-training
        ("stories", "validation"): 64,  # a block of the pre-training
        ("describe", "train"): 1,
        ("boolq", "test"): 1,
        ("boolq", "train"): 1,
    }


@pytest.mark.parametrize(
    ("change", "place", "least", "why"),
    [
        (
            lambda s: s["stages"]["recover"].update(max_length=128),
            ("stories", "validation"), 128, "stages.recover.max_length 128",
        ),
        (lambda s: s.update(budgets=[0, 2048]), ("stories", "train"), 2048, "stages.recover with its budget 2,048"),
        (
            lambda s: s["chain"]["large"].update(start="fit"),
            ("stories", "train"), 16384, "stages.fit.tokens 16384",
        ),
        (
            lambda s: s["stages"]["pretrain"].update(evaluations=1),
            ("stories", "validation"), 64, "stages.pretrain.max_length 64",
        ),
        (
            lambda s: s["stages"]["distill"].update(evaluations=1),
            ("stories", "validation"), 100, "the distillation of large on stories (max_length 100)",
        ),
        (
            lambda s: s["chain"]["small"].update(distill={"signal": 4}),
            ("describe", "validation"), 1, "the distillation of small on describe (max_length 100)",
        ),
        (
            lambda s: s["initialisers"].update(alone={"kind": "distilled", "distill": {"evaluations": 1}}),
            ("stories", "validation"), 100, "the distillation by initialisers.alone on stories (max_length 100)",
        ),
        (
            lambda s: s["stages"].update(order={"corpus": "stories", "tokens": 4096, "max_length": 64})
            or s["ancestors"]["llama"].update(select="rank"),
            ("stories", "train"), 4096, "stages.order.tokens 4096",
        ),
        (lambda s: s["stages"]["sft"].update(evaluations=2), ("describe", "validation"), 1, "stages.sft.evaluations 2"),
    ],
)  # fmt: skip
def test_the_most_that_any_stage_needs(needs, change, place, least, why):
    assert needs(change)[place] == (least, why)


def test_what_is_not_used_needs_nothing(needs):
    def without(study):
        study["stages"]["recover"].update(max_length=128, evaluations=1)
        study["stages"]["pretrain"]["evaluations"] = 0
        study["budgets"] = [0]
        study["stages"]["order"] = {"corpus": "stories", "tokens": 10**6}
        study["stages"]["fit"] = {"corpus": "stories", "max_length": 32}

    assert needs(without)["stories", "train"][0] == 1024
    assert ("stories", "validation") not in needs(without)


def test_a_task_that_generates_nothing_needs_no_training_rows(needs):
    def compared(study):
        study["tasks"]["boolq"] = {"instructions": "boolq", "max_new_tokens": 0, "likelihood": True}

    assert {split for name, split in needs(compared) if name == "boolq"} == {"test"}


def test_a_shortage_says_what_needs_how_much():
    counts = {"train": {"tokens": 5000}, "validation": {"tokens": 29}}
    given = [Need("train", 5000, "x"), Need("validation", 128, "stages.recover.max_length 128")]
    [line] = shortages("results/tiny/data/stories", counts, given)
    assert line == (
        "results/tiny/data/stories: the validation split has 29 tokens, but stages.recover.max_length 128 needs 128; lower "
        "that, or give the data set more rows, or the split more of them (datasets.<name>.validation, test)"
    )
    [line] = shortages("a", {"validation": {"rows": 0, "read": 3}}, [Need("validation", 1, "stages.sft.evaluations 2")])
    assert line.startswith("a: the validation split has 0 rows, but stages.sft.evaluations 2 needs 1; ")


def test_a_job_is_told_and_a_study_cannot_say_it(study):
    runtime = JobRuntime.model_validate(json.loads(JobRuntime(needs=[Need("test", 9, "x")]).model_dump_json()))
    with pytest.raises(ColpipeError, match="the test split has 8 tokens, but x needs 9"):
        require_enough("a", {"test": {"tokens": 8}}, runtime)
    require_enough("a", {"test": {"tokens": 9}}, runtime)
    require_enough("a", {"test": {"tokens": 0}}, Runtime())
    assert "needs" not in Runtime.model_fields


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.update(budgets=[0, 31]),
            "budgets: 31 tokens are less than a block of stages.recover.max_length 32",
        ),
        (
            lambda s: s["stages"]["pretrain"].update(tokens=63),
            "stages.pretrain.tokens: 63 tokens are less than a block of stages.pretrain.max_length 64",
        ),
        (
            lambda s: s["stages"].update(order={"corpus": "stories", "tokens": 100}),
            "stages.order.tokens: 100 tokens are less than a block of stages.order.max_length 128",
        ),
    ],
)
def test_less_than_a_block_is_refused_before_anything_runs(needs, change, message):
    with pytest.raises(ColpipeError, match=message):
        needs(change)
