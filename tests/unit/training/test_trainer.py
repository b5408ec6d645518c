"""What training must keep: global sizes, a complete state or none, a stop at broken numbers, trl's loss as ours."""

import json
import math
import time

import pytest
import torch

from colpipe.config.parts import Runtime
from colpipe.config.stages import Training
from colpipe.data.tokens import IGNORE, Rows, collate
from colpipe.errors import ColpipeError
from colpipe.hf.models import load_model, save_model
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.job import Job
from colpipe.jobs.state import COMPLETE
from colpipe.training.arguments import training_arguments
from colpipe.training.resumable import RemembersBatch
from colpipe.training.supervised import fine_tune
from colpipe.training.trainer import train
from tests.conftest import make_gpt2, make_model, make_tokenizer, open_job
from tests.unit.learngene.tiny import architecture, shape

ROWS = [{"input_ids": torch.arange(4 + n % 5) + n % 7, "labels": torch.arange(4 + n % 5) + n % 7} for n in range(24)]


@pytest.fixture
def new_job(tmp_path):
    jobs = []

    def make(name: str, settings: Training, **runtime) -> Job:
        job = open_job("pretrain", tmp_path / name, tmp_path / "work" / name, settings, Runtime(**runtime), {}, 0)
        jobs.append(job)
        return job

    yield make
    for job in jobs:
        job.close()


@pytest.fixture
def folder(tmp_path):
    make_gpt2(tmp_path / "model", 2, 2, 8, seed=3)
    return tmp_path / "model"


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_micro_batch_changes_nothing(folder, new_job):
    settings = Training(steps=5, batch_size=8, max_length=16, learning_rate=1e-2)
    results, losses = {}, {}
    for micro in (None, 4, 3, 1):
        job = new_job(f"micro-{micro}", settings, micro_batch=micro, device="cpu")
        results[micro] = weights(train(job, load_model(folder), settings, ROWS, collate(0)))
        records = job.metrics()
        losses[micro] = [record["loss"] for record in records]
    for micro in (4, 3, 1):
        assert losses[micro] == pytest.approx(losses[None], rel=1e-4)
        # Adam divides by the size of the gradient, so a rounding error near zero can grow to a part of a step (1e-2)
        torch.testing.assert_close(results[micro], results[None], rtol=0, atol=1e-3)


class Slow(list):
    """Rows that take a while to be read."""

    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)


def test_the_wait_for_data_is_measured(folder, new_job):
    settings, shares = Training(steps=5, batch_size=8, max_length=16), {}
    for name, rows in (("quick", ROWS), ("slow", Slow(ROWS))):
        job = new_job(name, settings, device="cpu")
        train(job, load_model(folder), settings, rows, collate(0))
        shares[name] = [record["data_wait"] for record in job.metrics()]
        assert len(shares[name]) == 5 and all(0 <= share <= 1 for share in shares[name])
        said = (job.work / "log.txt").read_text().splitlines()
        waited = f"{shares[name][-1]:.1%} of the time waiting for data"
        assert waited in said[-1] if waited[:3] != "0.0" else "waiting" not in said[-1]
    assert shares["slow"][-1] > shares["quick"][-1]


def test_no_wait_for_data_is_not_told(folder, new_job, monkeypatch):
    settings, job = Training(steps=2, batch_size=8, max_length=16), new_job("a", Training(), device="cpu")
    monkeypatch.setattr(RemembersBatch, "data_wait", property(lambda self: 0.0, lambda self, value: None))
    train(job, load_model(folder), settings, ROWS, collate(0))
    assert [record["data_wait"] for record in job.metrics()] == [0, 0]
    said = (job.work / "log.txt").read_text()
    assert "step 2/2" in said and "waiting for data" not in said


def test_accumulation_is_derived(new_job):
    settings = Training(batch_size=12)
    arguments = training_arguments(new_job("a", settings, micro_batch=5), settings)
    assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] == 12
    assert arguments["per_device_train_batch_size"] == 4


def test_a_broken_loss_stops_with_the_step(folder, new_job):
    model = load_model(folder)
    with torch.no_grad():
        model.transformer.wte.weight[3] = math.inf
    settings = Training(steps=5, batch_size=8, max_length=16)
    job = new_job("nan", settings, micro_batch=4)
    with pytest.raises(ColpipeError, match=r"train loss is nan at step 1; lower learning_rate .*broken-step-1.json"):
        train(job, model, settings, ROWS, collate(0))
    batches = json.loads((job.work / "broken-step-1.json").read_text())
    assert [len(batch) for batch in batches] == [4, 4]


def test_a_state_that_was_not_finished_is_not_used(folder, new_job):
    settings = Training(steps=6, batch_size=8, max_length=16, learning_rate=1e-2)
    whole = weights(train(new_job("whole", settings), load_model(folder), settings, ROWS, collate(0)))
    job = new_job("cut", settings, save_minutes=0)
    train(job, load_model(folder), settings, ROWS, collate(0))
    states = sorted((job.state / "trainer").glob("checkpoint-*"))
    assert [state.name for state in states] == ["checkpoint-4", "checkpoint-5"]
    (states[1] / COMPLETE).unlink()  # as if killed while this one was written
    (states[1] / "model.safetensors").write_bytes(b"half")
    again = weights(train(job, load_model(folder), settings, ROWS, collate(0)))
    assert torch.equal(whole, again)


def test_a_damaged_state_is_not_used(folder, new_job, capsys):
    settings = Training(steps=6, batch_size=8, max_length=16, learning_rate=1e-2)
    job = new_job("cut", settings, save_minutes=0)
    whole = weights(train(job, load_model(folder), settings, ROWS, collate(0)))
    for damaged, said in (((5,), "resumes at step 4"), ((4, 5), None)):
        for step in damaged:
            path = job.state / f"trainer/checkpoint-{step}/optimizer.pt"
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        capsys.readouterr()
        assert torch.equal(whole, weights(train(job, load_model(folder), settings, ROWS, collate(0))))
        messages = capsys.readouterr().err
        assert messages.count("is damaged: not used") == len(damaged)
        assert said in messages if said else "resumes" not in messages


def test_fine_tuning_with_trl_takes_the_loss_of_the_answers_only(tmp_path, new_job):
    """The first loss that trl reports is the plain mean over answer tokens of the whole batch."""
    tokenizer = make_tokenizer(["a small test of words"], 300)
    make_gpt2(tmp_path / "model", 2, 2, 8, seed=5, vocabulary=300, positions=64)
    model = load_model(tmp_path / "model")
    rows = [{"prompt": "word " * n, "completion": "answer " * (5 - n)} for n in range(1, 5)]
    batch = collate(0)(list(Rows(rows, tokenizer, 64)))
    with torch.no_grad():
        log_probs = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].log_softmax(-1)
    labels = batch["labels"][:, 1:]
    kept = labels != IGNORE
    expected = -log_probs.gather(-1, labels.clamp(min=0)[..., None])[..., 0][kept].mean()
    settings = Training(steps=1, batch_size=4, max_length=64)
    job = new_job("sft", settings, micro_batch=2)
    fine_tune(job, model, tokenizer, rows, settings)
    [record] = job.metrics()
    assert record["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_fine_tuning_sees_whole_rows_only(tmp_path, new_job, capfd):
    """Rows and validation rows that do not fit are left out, counted and said; less than a batch is refused."""
    tokenizer = make_tokenizer(["a"], 257)
    make_gpt2(tmp_path / "model", 1, 1, 8, seed=5, vocabulary=257, positions=64)
    rows = [{"prompt": "p" * 5, "completion": "c" * count} for count in range(1, 13)]
    settings = Training(steps=1, batch_size=4, max_length=12, evaluations=1)
    job = new_job("whole", settings, device="cpu")
    fine_tune(job, load_model(tmp_path / "model"), tokenizer, rows, settings, rows[4:8], label="boolq: ")
    assert job.manifest["rows"] == {
        "boolq: train": {"rows": 6, "too_long": 6, "special": 0},
        "boolq: validation": {"rows": 2, "too_long": 2, "special": 0},
    }
    said = "boolq: train: 6 of 12 rows are used, 6 were left out: longer than max_length 12 tokens"
    assert said in capfd.readouterr().err
    few = settings.model_copy(update={"max_length": 9})
    with pytest.raises(ColpipeError, match=r"train: 3 are left after 9 rows longer .*, less than one batch \(4\)"):
        fine_tune(new_job("few", few, device="cpu"), load_model(tmp_path / "model"), tokenizer, rows, few)
    rows = [{"prompt": "p" * 60, "completion": "c" * count} for count in (1, 2, 3, 4)]
    long = settings.model_copy(update={"max_length": 100})
    with pytest.raises(
        ColpipeError, match="train: the longest row has 65 tokens, but the model has 64 positions; lower"
    ):
        fine_tune(new_job("long", long, device="cpu"), load_model(tmp_path / "model"), tokenizer, rows, long)
    rows = [{"prompt": "p" * 5, "completion": "c"}] * 4
    none = Training(steps=1, batch_size=4, max_length=12)  # validation that nobody looks at is not read
    job = new_job("none", none, device="cpu")
    fine_tune(job, load_model(tmp_path / "model"), tokenizer, rows, none, [{"prompt": "p" * 99, "completion": "c"}])
    assert list(job.manifest["rows"]) == ["train"]


def test_a_saved_model_is_a_stock_folder(folder, tmp_path):
    tokenizer = make_tokenizer(["words"], 300)
    save_model(load_model(folder), tokenizer, tmp_path / "saved")
    model = load_model(tmp_path / "saved")
    assert torch.equal(weights(model), weights(load_model(folder)))
    assert load_tokenizer(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_truncated_model_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ColpipeError, match=r"cannot be loaded .*broken: model.safetensors"):
        load_model(folder)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2", "qwen3"])
def test_packed_rows_train_as_padded_ones(family, tmp_path, new_job):
    tokenizer = make_tokenizer(["who are you", "i am a small model", "yes", "a b c"], 300)
    tokenizer.save_pretrained(tmp_path / "model")
    chain = architecture(family, False).model_copy(update={"vocabulary": len(tokenizer), "positions": 32})
    make_model(tmp_path / "model", chain, shape(family, 2, 2, 20), seed=4)
    rows = [{"prompt": "who are you" * (1 + n % 2), "completion": "i am" * (1 + n % 3)} for n in range(12)]
    settings = Training(steps=4, batch_size=6, max_length=32, learning_rate=1e-2)
    found, losses, tokens = {}, {}, {}
    for packing in (False, True):
        job = new_job(f"packing-{packing}", settings, device="cpu", packing=packing, micro_batch=3)
        model = load_model(tmp_path / "model")
        seen = set()
        model.base_model.register_forward_pre_hook(
            lambda _, inputs, given, seen=seen: seen.add(tuple(given["input_ids"].shape)), with_kwargs=True
        )
        found[packing] = weights(fine_tune(job, model, tokenizer, rows, settings))
        losses[packing] = [record["loss"] for record in job.metrics()]
        tokens[packing] = [record["tokens"] for record in job.metrics()]
        assert {size[0] for size in seen} == {1 if packing else 3}
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert tokens[True] == tokens[False]
    # Of a gradient that is zero but for rounding, Adam makes a step as large as any other: a few weights may differ.
    assert (found[True] - found[False]).abs().quantile(0.999) < 1e-3
