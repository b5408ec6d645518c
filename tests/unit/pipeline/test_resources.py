"""What jobs ask for: on the safe side of the estimate, and that nothing has to be there for it."""

from types import SimpleNamespace

import pytest

from colpipe.config.loading import load_study
from colpipe.errors import ColpipeError
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.resources import _training, resources_of_job


@pytest.fixture
def plan(study, inputs, monkeypatch):
    def make(**changes) -> Plan:
        monkeypatch.chdir(inputs.parent)
        (inputs.parent / "inputs").exists() or (inputs.parent / "inputs").symlink_to(inputs)
        return Plan(load_study({**study, **changes}, "study"))

    return make


DISTILL = SimpleNamespace(ancestor="llama", member="medium")


def test_training_on_a_cpu(plan):
    made = plan(runtime={"device": "cpu"})
    found = resources_of_job(made, "distill", DISTILL)
    student = made.study.parameters(made.study.chain["medium"].shape)
    teacher = made.study.parameters(made.study.chain["large"].shape)
    activations = 3 * 4 * 4 * 100 * (8 * 16 + 2 * 64)  # layers, bytes, rows, tokens, values a token
    logits = 4 * 4 * 99 * 512  # of rows that are as long as may be; half of the tokens of unseen rows are answers
    assert found.accelerators == 0
    least = 12 * student + 4 * teacher + activations
    assert (3e9 + 1.2 * 1.3 * least) / 1e6 < found.memory_mb < (3e9 + 2 * (least + 3 * logits)) / 1e6
    assert found.minutes == 31


def test_long_trainings_get_more_devices_and_the_batch_is_shared_evenly(plan, study):
    shape = {"layers": 24, "heads": 256, "hidden": 2048}
    study["models"]["bridge"] = {"shape": shape}
    study["stages"]["bridge"] = {"steps": 600000, "batch_size": 12, "max_length": 128}
    found = resources_of_job(plan(), "bridge", SimpleNamespace(ancestor="llama"))
    assert found.accelerators == 4  # 8 do not share 12 rows
    study["stages"]["bridge"]["batch_size"] = 16
    more = resources_of_job(plan(), "bridge", SimpleNamespace(ancestor="llama"))
    assert more.accelerators == 8 and more.minutes < found.minutes


def test_an_ancestor_that_is_not_known_yet_counts_as_a_large_one(plan, study):
    study["models"]["llama"] = {"source": {"hub": "owner/llama"}}
    found = resources_of_job(plan(), "sft", SimpleNamespace(start="llama"))
    assert found.memory_mb == 3000 + 2 * 4 * 8000


def test_what_trains_nothing_needs_no_device(plan):
    for rule, wildcards in (
        ("assemble", SimpleNamespace(ancestor="llama", desnet="upper", init="nested")),
        ("prepare_corpus", SimpleNamespace(corpus="stories")),
        ("report", SimpleNamespace()),
    ):
        assert resources_of_job(plan(), rule, wildcards).accelerators == 0


def test_a_fitted_desnet_asks_for_the_memory_of_its_source_its_own_and_a_system(plan, study):
    def shape(layers: int, heads: int) -> dict:
        return {"layers": layers, "heads": heads, "hidden": 128 * heads}

    study["models"]["bridge"]["shape"] = study["chain"]["large"]["shape"] = shape(24, 16)
    study["chain"]["medium"]["shape"], study["chain"]["small"]["shape"] = shape(20, 12), shape(16, 8)
    study["desnets"]["upper"]["shape"], study["desnets"]["lower"]["shape"] = shape(22, 14), shape(18, 10)
    study["initialisers"]["fit"] = {"kind": "linit"}
    study["stages"]["fit"] = {"tokens": 1024, "max_length": 64}
    names = SimpleNamespace(ancestor="llama", desnet="upper", init="fit")
    found = resources_of_job(plan(), "assemble", names)
    models = 4 * 12 * (24 * 2048**2 + 22 * 1792**2)
    system = 8 * 4 * 1792 * (5 * 4 * 1792 + 4 * 1792)
    assert found.memory_mb == pytest.approx((3e9 + 1.3 * (models + system)) / 1e6, rel=0.05)


def test_a_data_parallel_rule_without_a_training_is_explained():
    with pytest.raises(
        ColpipeError, match="rule distill: its kind is data-parallel, but its settings have no training"
    ):
        _training("distill", {"rows": 3})
