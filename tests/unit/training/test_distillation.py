"""Every objective through the trainer: it learns, sizes are global, a job that is cut off ends with the same bits."""

import os
import random
import signal
import time

import pytest
import torch

from colpipe.config.parts import Architecture, Runtime, Shape
from colpipe.config.stages import Distill, Elastic, Pretrain
from colpipe.data.tokens import IGNORE
from colpipe.hf.models import load_frozen, load_model
from colpipe.learngene.elastic import ElasticMember
from colpipe.training import trainer
from colpipe.training.distillation import DistillationData, distill
from colpipe.training.elastic import Submodels
from colpipe.training.keep_best import best_evaluation, candidates
from colpipe.training.rollout_trainer import RolloutTrainer
from colpipe.training.rollouts import shuffled
from tests.conftest import Killed, kill, make_gpt2, open_job
from tests.unit.training.test_hooks import PRIVATE, PUBLIC

OBJECTIVES = ["reverse_kl", "forward_kl", "jsd", "seqkd", "minillm", "on_policy"]
END = 0
PROMPTS = [torch.arange(2 + n % 3) + n % 40 + 1 for n in range(10)]
TEXT = [{"input_ids": torch.arange(8) + n, "labels": torch.arange(8) + n} for n in range(6)]


def row(n: int) -> dict:
    ids = torch.arange(4 + n % 5) + n % 7
    return {"input_ids": ids, "labels": torch.where(torch.arange(len(ids)) < 2, IGNORE, ids)}


ROWS = [row(n) for n in range(24)]
SETTINGS = {
    "data": ["x"],
    "steps": 12,
    "batch_size": 4,
    "max_length": 12,
    "learning_rate": 1e-2,
    "warmup": 1,
    "evaluations": 3,
    "rollout": {"size": 8, "epochs": 2, "batch_size": 3},
}


MATERIAL = DistillationData(items=ROWS, prompts=PROMPTS, text=TEXT, validation=ROWS[:6], end_ids=[END], pad_id=END)
ELASTIC = ["reverse_kl+elastic", "minillm+elastic", "on_policy+elastic"]  # with the submodels of an elastic member


def submodels_of(student, objective: str) -> Submodels | None:
    """Two submodels at every step, down to a quarter of the tiny student."""
    if not objective.endswith("+elastic"):
        return None
    member = Architecture(vocabulary=50, positions=16).sizes(Shape(layers=1, heads=1, hidden=4))
    return Submodels(student, ElasticMember(member, [0], 1.0), Elastic(), seed=0)


@pytest.fixture
def world(tmp_path):
    """A function that distils, perhaps until it is killed after a step, and says how it went."""
    make_gpt2(tmp_path / "student", 2, 2, 8, seed=1)
    teacher = make_gpt2(tmp_path / "teacher", 2, 2, 8, seed=2)
    with torch.no_grad():
        teacher.transformer.wte.weight *= 4  # surer of itself: something to learn
    teacher.save_pretrained(tmp_path / "teacher")
    jobs = []

    def run(
        name: str,
        objective: str,
        kill_at: int | None = None,
        runtime: dict | None = None,
        teacher_precision: str = "float32",
        **changes,
    ):
        settings = Distill(objective=objective.removesuffix("+elastic"), **{**SETTINGS, **changes})
        job = open_job(
            "distill",
            tmp_path / name,
            tmp_path / "work" / name,
            settings,
            Runtime(device="cpu", save_minutes=0, **(runtime or {})),
            {},
            0,
        )
        jobs.append(job)
        kill(job, after=kill_at)
        try:
            student = load_model(tmp_path / "student")
            student, kept = distill(
                job,
                student,
                load_frozen(tmp_path / "teacher", teacher_precision, torch.device("cpu")),
                settings,
                MATERIAL,
                answer_score=lambda model: float(model.transformer.wte.weight.sum().item() * 100 // 1),
                submodels=submodels_of(student, objective),
            )
        finally:
            job.close()
        weights = torch.cat([parameter.detach().flatten() for parameter in student.parameters()])
        timed = ("tokens_per_second", "data_wait")
        metrics = [{key: value for key, value in record.items() if key not in timed} for record in job.metrics()]
        return weights, sorted(metrics, key=lambda record: (record["step"], record["split"])), kept

    yield run
    for job in jobs:
        job.close()


@pytest.mark.parametrize("objective", [*OBJECTIVES, *ELASTIC])
def test_a_job_that_is_killed_anywhere_ends_with_the_same_bits(world, objective):
    whole, metrics, kept = world("whole", objective)
    chance = random.Random(objective)
    for trial in range(3):
        name = f"cut-{trial}"
        for kill_at in sorted(chance.sample(range(1, 12), 2)):
            with pytest.raises(Killed):
                world(name, objective, kill_at)
        again, metrics_again, kept_again = world(name, objective)
        assert torch.equal(whole, again)
        assert metrics_again == metrics
        assert kept_again == kept


# The keys that come as near as can be to MiniLLM's published code (docs/distillation.md).
PUBLISHED = {**SETTINGS["rollout"], "max_new_tokens": 3, "count_own": True, "whiten": "update", "text_teacher": 0.5}


def test_as_published_too(world):
    whole, metrics, _ = world("whole", "minillm", rollout=PUBLISHED)
    for kill_at in (3, 6):
        with pytest.raises(Killed):
            world("cut", "minillm", kill_at, rollout=PUBLISHED)
    again, metrics_again, _ = world("cut", "minillm", rollout=PUBLISHED)
    assert torch.equal(whole, again) and metrics_again == metrics
    assert max(record["answer_tokens"] for record in metrics if record["split"] == "rollout") <= 3
    here, *_ = world("here", "minillm", rollout=PUBLISHED, steps=2, evaluations=0)
    for key, plain in (("whiten", "rollout"), ("count_own", False), ("text_teacher", 0.0), ("max_new_tokens", None)):
        other, *_ = world(f"other-{key}", "minillm", rollout={**PUBLISHED, key: plain}, steps=2, evaluations=0)
        assert not torch.equal(other, here), key


def test_the_teacher_has_its_share_of_the_loss_on_text(world, tmp_path):
    losses = {}
    for share in (0.0, 0.25, 1.0):
        rollout = {**SETTINGS["rollout"], "text_teacher": share, "text_weight": 2.0}
        _, metrics, _ = world(f"share-{share}", "minillm", steps=1, evaluations=0, rollout=rollout)
        [losses[share]] = [record["loss"] for record in metrics if record["split"] == "train"]
    text = torch.stack([TEXT[index]["input_ids"] for index in shuffled(len(TEXT), 0, 0)[:4]])
    with torch.no_grad():
        q, p = (load_model(tmp_path / name)(text).logits[:, :-1].log_softmax(-1) for name in ("student", "teacher"))
    cross_entropy = -q.gather(-1, text[:, 1:, None]).mean().item()
    divergence = (p.exp() * (p - q)).sum(-1).mean().item()
    for share in (0.25, 1.0):
        assert losses[share] - losses[0.0] == pytest.approx(2 * share * (divergence - cross_entropy), rel=1e-3)


def recorded(name: str, method, called: set):
    def call(self, *args, **more):
        called.add(name)
        return method(self, *args, **more)

    return call


def test_the_training_loop_calls_every_hook(world, monkeypatch):
    """On sampled completions, cut off after a saved state and gone on with."""
    called = set()
    for name in (*PRIVATE, *PUBLIC):
        owner = next(each for each in RolloutTrainer.__mro__ if name in vars(each))

        monkeypatch.setattr(owner, name, recorded(name, vars(owner)[name], called))
    with pytest.raises(Killed):
        world("hooks", "minillm", kill_at=6)
    world("hooks", "minillm")
    assert called == {*PRIVATE, *PUBLIC}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_learns(world, objective):
    more = {"steps": 80, "evaluations": 1, "keep": "last", "batch_size": 8, "learning_rate": 2e-2}
    more["rollout"] = {**SETTINGS["rollout"], "text_weight": 0.0}  # the text here would be learnt by heart
    _, metrics, kept = world("learns", objective, **more)
    first, last = (
        next(record for record in metrics if record["split"] == "validation" and record["step"] == step)
        for step in (0, 80)
    )
    measure = "cross_entropy" if objective in ("forward_kl", "seqkd") else "loss"  # all or half of these is that
    assert last[measure] < 0.8 * first[measure]
    assert kept == {"kept": {"by": "last"}}


def test_a_teacher_that_no_loss_looks_at_is_asked_for_answers_only(world, monkeypatch):
    training = {"seqkd": [], "reverse_kl": []}
    project = trainer.project
    for objective, seen in training.items():
        record = seen.append
        monkeypatch.setattr(
            trainer, "project", lambda model, *rest, r=record: r(model.training) or project(model, *rest)
        )
        world(f"asked-{objective}", objective, steps=3, evaluations=0)
    assert training["seqkd"] and all(training["seqkd"])  # the student alone, which learns
    assert not all(training["reverse_kl"])


@pytest.mark.parametrize("objective", [*OBJECTIVES, *ELASTIC])
def test_the_micro_batch_changes_nothing(world, objective):
    results = {
        micro: world(f"micro-{micro}", objective, runtime={"micro_batch": micro}, steps=4) for micro in (None, 2, 1)
    }
    losses = {
        micro: [record["loss"] for record in metrics if record["split"] == "train"]
        for micro, (_, metrics, _) in results.items()
    }
    for micro in (2, 1):
        assert losses[micro] == pytest.approx(losses[None], rel=1e-3)


@pytest.mark.parametrize("objective", ["minillm", "reverse_kl+elastic"])
def test_checkpointing_changes_nothing(world, objective):
    plain, *_ = world("plain", objective, steps=4)
    again, *_ = world("again", objective, steps=4, runtime={"gradient_checkpointing": True})
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes, sizes, said", [
    ({"steps": 12}, [8, 8, 8], "3 rollouts, 24 prompts, 2 passes over each\n"),
    ({"steps": 10}, [8, 8, 4], "3 rollouts, 20 prompts, 2 passes over each, the last of 4 (rollout.size 8): the steps use "),
    ({"steps": 3, "rollout": {"size": 256}}, [4], "1 rollout, 4 prompts, 4 passes over each, the last of 4 (rollout.size 2"),
])  # fmt: skip
def test_no_more_is_sampled_than_the_steps_use(world, tmp_path, monkeypatch, changes, sizes, said):
    sampled = []
    monkeypatch.setattr(RolloutTrainer, "_sample", recorded_size(RolloutTrainer._sample, sampled))
    world("few", "minillm", evaluations=0, runtime={"progress_seconds": 0}, **changes)
    log = (tmp_path / "work/few/log.txt").read_text()
    assert sampled == sizes and said in log
    batches = [line for line in log.splitlines() if "prompts answered" in line]
    size = 32 if "rollout" in changes else SETTINGS["rollout"]["batch_size"]
    assert len(batches) == sum(-(-each // size) for each in sizes)
    assert f"rollout 1 of {len(sizes)}: " in batches[0] and " left" in batches[0]


def recorded_size(method, sizes: list):
    def call(self, number):
        rows = method(self, number)
        sizes.append(len(rows))
        return rows

    return call


def test_a_shortened_rollout_is_passed_over_as_often_as_a_whole_one(world, monkeypatch):
    """Of 10 steps of 4 rows the last two are on a rollout of 4: each of its rows once in each pass."""
    seen = []
    row = RolloutTrainer._row
    monkeypatch.setattr(RolloutTrainer, "_row", lambda self, place: seen.append(id(found := row(self, place))) or found)
    world("passes", "on_policy", evaluations=0, steps=10)
    assert len(set(seen[32:36])) == 4 and sorted(seen[32:36]) == sorted(seen[36:40])


def test_rollouts_come_from_the_student_as_it_is(world, tmp_path):
    """Eight prompts, twice, four at a time: new answers at every fourth step, each prompt as often as the others."""
    _, metrics, _ = world("rollouts", "minillm")
    assert [record["step"] for record in metrics if record["split"] == "rollout"] == [0, 4, 8]


def test_the_best_evaluation_is_kept(world):
    weights, metrics, kept = world("best", "reverse_kl", keep="loss")
    losses = {record["step"]: record["loss"] for record in metrics if record["split"] == "validation"}
    chosen = min((loss, step) for step, loss in losses.items() if step)[1]
    assert kept["kept"]["step"] == chosen and kept["kept"]["by"] == "loss"
    last, *_ = world("last", "reverse_kl", keep="last")
    assert torch.equal(weights, last) == (chosen == 12)


def test_ties_go_to_the_lower_loss_then_the_earlier_step():
    def record(step, rouge, loss):
        return {"split": "validation", "step": step, "rouge_l": rouge, "loss": loss}

    records = [record(0, 2, 3), record(5, 7, 2), record(10, 7, 1), record(15, 7, 1), record(20, 3, 0)]
    assert best_evaluation(records, "rouge_l") == (records[2], "rouge_l", [5, 15])
    assert best_evaluation(records, "loss")[0] == records[4]
    start = [record(0, 9, 0), *records[1:]]
    assert best_evaluation(start, "rouge_l")[0]["step"] == 0
    assert best_evaluation(start, "loss") == (start[0], "loss", [20])
    unscored = [{key: value for key, value in each.items() if key != "rouge_l"} for each in records]
    assert best_evaluation(unscored, "rouge_l")[1] == "loss"


def test_a_distillation_never_publishes_its_start():
    records = [{"split": split, "step": step} for split in ("train", "validation") for step in (0, 5)]
    assert candidates(records, Distill(data=["d"])) == records[3:]
    assert candidates(records, Pretrain(corpus="c")) == records[2:]


@pytest.fixture(scope="module")
def distil_tiny():
    """The module, which imports this one."""
    from tests.unit.training import distil_tiny

    return distil_tiny


@pytest.mark.slow
@pytest.mark.parametrize("objective", [*OBJECTIVES, "reverse_kl+elastic"])
def test_kill_and_sigterm_at_any_step(tmp_path, objective, distil_tiny):
    """Random moments: of each of three runs one is killed, the next is told to stop, the third may end. They are early, so
    that none has ended before it is killed."""
    make_gpt2(tmp_path / "student", 2, 2, 8, seed=1)
    make_gpt2(tmp_path / "teacher", 2, 2, 8, seed=2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    longer = {"steps": 18}

    def records() -> str:
        return "".join(path.read_text() for path in cut.glob("work/state-*/metrics.jsonl"))

    distil_tiny.finish(distil_tiny.start(objective, tmp_path, whole, longer), whole)
    first, second = sorted(random.Random(objective).sample(range(1, 12), 2))
    for step, number, codes in ((first, signal.SIGKILL, (-9,)), (second, signal.SIGTERM, (143, 0)), (99, None, (0,))):
        before = len(records())  # a run that was killed late may have got to the next one's step
        (process,) = distil_tiny.start(objective, tmp_path, cut, longer)
        while number and process.exitcode is None:
            if f'"step": {step}, ' in records()[before:]:
                os.kill(process.pid, number)
                break
            time.sleep(0.01)
        process.join()
        assert process.exitcode in codes
    whole, again = (torch.load(folder / "student.pt") for folder in (whole, cut))
    assert all(torch.equal(value, again["weights"][name]) for name, value in whole["weights"].items())


@pytest.mark.parametrize("objective", [*OBJECTIVES, "reverse_kl+elastic"])
def test_two_processes_do_what_one_does(tmp_path, objective, distil_tiny):
    make_gpt2(tmp_path / "student", 2, 2, 8, seed=1)
    make_gpt2(tmp_path / "teacher", 2, 2, 8, seed=2)
    found, changes = {}, {"steps": 4, "evaluations": 1, "keep": "last"}
    for processes in (1, 2):
        output = tmp_path / f"by-{processes}"
        distil_tiny.finish(distil_tiny.start(objective, tmp_path, output, changes, processes), output)
        found[processes] = torch.load(output / "student.pt")
    losses = [[r["loss"] for r in found[n]["metrics"] if r["split"] == "train"] for n in (1, 2)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    first, second = (torch.load(tmp_path / f"by-2-process-{rank}.pt") for rank in (0, 1))
    for name, value in found[1]["weights"].items():
        assert torch.equal(first[name], second[name]) and torch.equal(first[name], found[2]["weights"][name])
        torch.testing.assert_close(found[2]["weights"][name], value, rtol=0, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_sharded_model_learns_as_a_whole_one(tmp_path, objective, distil_tiny):
    """With the weights of the best evaluation, which are gathered."""
    make_gpt2(tmp_path / "student", 2, 2, 8, seed=1)
    make_gpt2(tmp_path / "teacher", 2, 2, 8, seed=2)
    changes, found = {"steps": 6, "evaluations": 2, "keep": "loss"}, {}
    for name, processes in (("whole", 1), ("sharded", 2)):
        output, shard = tmp_path / name, name == "sharded"
        distil_tiny.finish(distil_tiny.start(objective, tmp_path, output, changes, processes, shard), output)
        found[name] = torch.load(tmp_path / name / "student.pt")
    losses = {name: [r["loss"] for r in each["metrics"] if r["split"] == "train"] for name, each in found.items()}
    assert losses["sharded"] == pytest.approx(losses["whole"], rel=1e-5)
    for name, value in found["whole"]["weights"].items():
        torch.testing.assert_close(found["sharded"]["weights"][name], value, rtol=0, atol=2e-3)
    assert list((tmp_path / "sharded/work").glob("state-*/trainer/checkpoint-*/pytorch_model_fsdp_0"))


@pytest.mark.parametrize("objective", [*OBJECTIVES, *ELASTIC])
def test_half_precision_follows(world, objective):
    _, exact, _ = world("exact", objective, steps=4)
    _, half, _ = world("half", objective, steps=4, precision="bfloat16")
    losses = [[record["loss"] for record in metrics if record["split"] == "train"] for metrics in (exact, half)]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.1, abs=0.1)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("objective", ["reverse_kl", "forward_kl", "jsd", "reverse_kl+elastic"])
def test_a_teacher_in_half_precision_teaches_nearly_the_same(world, monkeypatch, objective):
    """Its weights are in bfloat16, the student's master weights in float32; losses at the start are those of float32."""
    changes = {"steps": 2, "evaluations": 1, "keep": "last", "precision": "bfloat16"}
    _, exact, _ = world("exact", objective, **changes)
    weights, half, _ = world("half", objective, teacher_precision="bfloat16", **changes)
    assert weights.dtype == torch.float32
    for first, second in zip(exact, half, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=0.02, abs=0.02)
