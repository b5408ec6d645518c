"""What the ledger counts and what the estimate says before, against torch's own counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from colpipe.architectures import flops
from colpipe.architectures.flops import saved_values
from colpipe.config.parts import Architecture, Runtime, Shape
from colpipe.config.stages import Distill, Elastic, Pretrain, Training
from colpipe.cost.inputs import Data, of_shape
from colpipe.cost.passes import Pass, fused_head, submodels_of, training
from colpipe.data.mixtures import validation_items
from colpipe.data.tokens import Blocks
from colpipe.evaluation.generation import answer
from colpipe.hf.counting import count_calls
from colpipe.hf.models import load_model, random_model
from colpipe.jobs import usage
from colpipe.jobs.job import Job
from colpipe.learngene.elastic import ElasticMember
from colpipe.training.distillation import DistillationData, distill
from colpipe.training.elastic import Submodels
from colpipe.training.rollouts import sample
from colpipe.training.supervised import fine_tune
from colpipe.training.trainer import train
from tests.conftest import WORDS, Killed, make_tokenizer, open_job, write_tokens

LENGTH = 48
SMALL = {"layers": 2, "heads": 4, "hidden": 64}
GROUPED = {**SMALL, "kv_heads": 2, "head_dim": 32, "ffn": 160}
SHAPES = {
    "gpt2": SMALL,
    "gpt_neox": SMALL,
    "llama": {**GROUPED, "head_dim": None},
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "mistral": GROUPED,
    "smollm3": GROUPED,
    "granite": GROUPED,
    "olmo2": GROUPED,
    "gemma3_text": GROUPED,
    "phi3": {**GROUPED, "head_dim": None},
}


def chain(family: str) -> tuple[Architecture, Shape, Shape]:
    """Architecture, a member's shape, its teacher's."""
    shape = SHAPES[family]
    return Architecture(family=family, vocabulary=500, positions=64), Shape(**shape), Shape(**{**shape, "layers": 3})


class Counter(FlopCounterMode):
    """torch's counter; attention in its plain form, because it does not know the fused one of processors."""

    def __init__(self):
        def in_place(added, left, right, out_shape=None, **_):  # it knows addmm, not addmm_
            return 2 * left[0] * left[1] * right[1]

        super().__init__(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})

    def __enter__(self):
        self.plain = sdpa_kernel(SDPBackend.MATH)
        self.plain.__enter__()
        self.before = dict(usage.counted)
        return super().__enter__()

    def __exit__(self, *error):
        result = super().__exit__(*error)
        self.plain.__exit__(*error)
        self.recorded = usage.counted["flops"] - self.before["flops"]
        self.tokens = usage.counted["tokens"] - self.before["tokens"]
        return result


@pytest.fixture
def new_job(tmp_path):
    jobs = []

    def make(settings: Training, runtime: Runtime) -> Job:
        jobs.append(open_job("pretrain", tmp_path / "out", tmp_path / "work", settings, runtime, {}, 0))
        return jobs[-1]

    make.jobs = jobs
    yield make
    for job in jobs:
        job.close()


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, count in (("train", 2000), ("validation", 300)):
        write_tokens(folder, split, torch.arange(count).numpy().astype("uint16") % 499)
    return folder


def blocks(count: int) -> Data:
    return Data(count, ((1, LENGTH - 1),))


@pytest.mark.parametrize("family", SHAPES)
def test_keys_and_values_that_generation_keeps(family):
    architecture, shape, _ = chain(family)
    model = random_model(architecture.configure(shape, 0), 0)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.zeros(3, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    kept = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert flops.cache_memory(of_shape(architecture, shape).sizes, 3, 7) == kept


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", SHAPES)
def test_pretraining_and_recovery(family, checkpointed, new_job, corpus, tmp_path):
    architecture, shape, _ = chain(family)
    settings = Pretrain(corpus="x", steps=3, batch_size=4, max_length=LENGTH, evaluations=1)
    runtime = Runtime(device="cpu", micro_batch=2, gradient_checkpointing=checkpointed)
    random_model(architecture.configure(shape, 0), 0).save_pretrained(tmp_path / "assembled")
    model = load_model(tmp_path / "assembled")
    data, validation = Blocks(corpus, "train", LENGTH), validation_items(Blocks(corpus, "validation", LENGTH))
    with Counter() as counter:
        train(new_job(settings, runtime), model, settings, data, validation=validation)
    known = of_shape(architecture, shape)
    estimated = training(known, [blocks(len(data))], settings, Pass(runtime), [blocks(len(validation))])
    assert known.parameters == model.num_parameters()
    assert counter.recorded == counter.get_total_flops()
    assert estimated.flops == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert estimated.tokens == counter.tokens


def test_what_a_killed_attempt_used_is_not_forgotten(new_job, corpus):
    architecture, shape, _ = chain("gpt2")
    settings, runtime = (
        Pretrain(corpus="x", steps=6, batch_size=4, max_length=LENGTH),
        Runtime(device="cpu", save_minutes=0),
    )

    def attempt(steps: int) -> Job:
        job = new_job(settings, runtime)
        read = []

        class Breaking(Blocks):
            def __getitem__(self, index):
                read.append(index)
                if len(read) > 4 * steps:
                    raise Killed
                return super().__getitem__(index)

        data = Breaking(corpus, "train", LENGTH)
        train(job, random_model(architecture.configure(shape, 0), 0), settings, data)
        return job

    step = of_shape(architecture, shape).forward
    step = 3 * (step.layers(4, LENGTH) + 4 * (LENGTH - 1) * step.head)
    with pytest.raises(Killed):
        attempt(4)
    killed = new_job.jobs[-1]
    killed.ledger.keep = lambda now=True: None  # it had no time for a last word
    killed.close()
    used = attempt(100).ledger.total()
    assert used["attempts"] == 2
    assert 6 * step <= used["flops"] <= 8 * step


def rows_of(lengths: list[tuple[int, int]]) -> list[dict]:
    rows = []
    for asked, answered in lengths:
        ids = torch.arange(asked + answered) % 499
        rows.append({"input_ids": ids, "labels": torch.where(torch.arange(len(ids)) < asked, -100, ids)})
    return rows


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", SHAPES)
def test_distillation_beside_a_teacher(family, checkpointed, new_job):
    architecture, shape, taught_by = chain(family)
    settings = Distill(data=["x"], objective="reverse_kl", steps=6, batch_size=4, max_length=LENGTH, evaluations=1)
    runtime = Runtime(device="cpu", gradient_checkpointing=checkpointed)
    lengths = [(6 + number % 11, 5 + number % 23) for number in range(24)]
    material = DistillationData(rows_of(lengths), [], None, rows_of(lengths[:8]), [0], 0)
    student, teacher = (random_model(architecture.configure(each, 0), 0) for each in (shape, taught_by))
    with Counter() as counter:
        distill(new_job(settings, runtime), student, teacher, settings, material)
    how = Pass(runtime, teacher=of_shape(architecture, taught_by))
    data = Data(24, tuple(lengths)), Data(8, tuple(lengths[:8]))
    estimated = training(of_shape(architecture, shape), [data[0]], settings, how, [data[1]])
    assert counter.recorded == counter.get_total_flops()
    assert estimated.flops == pytest.approx(counter.get_total_flops(), rel=0.1)  # which rows meet in a batch is chance


def test_submodels_of_an_elastic_member(new_job):
    architecture, shape, taught_by = chain("gpt2")
    settings = Distill(data=["x"], objective="reverse_kl", steps=8, batch_size=2, max_length=LENGTH, keep="last")
    elastic = Elastic(smallest=Shape(layers=1, heads=2, hidden=32))
    student, teacher = (random_model(architecture.configure(each, 0), 0) for each in (shape, taught_by))
    submodels = Submodels(student, ElasticMember(architecture.sizes(elastic.smallest), [0], 1.0), elastic, seed=0)
    material = DistillationData(rows_of([(1, LENGTH - 1)] * 16), [], None, rows_of([(1, LENGTH - 1)]), [0], 0)
    with Counter() as counter:
        distill(new_job(settings, Runtime(device="cpu")), student, teacher, settings, material, submodels=submodels)
    known = of_shape(architecture, shape)
    how = Pass(
        Runtime(), teacher=of_shape(architecture, taught_by), submodels=submodels_of(architecture, known, elastic)
    )
    estimated = training(known, [blocks(16)], settings, how)
    assert counter.recorded == counter.get_total_flops()
    assert estimated.flops == pytest.approx(counter.get_total_flops(), rel=0.1)  # the random shapes are chance


def test_fine_tuning(new_job, tmp_path):
    architecture, shape, _ = chain("llama")
    tokenizer = make_tokenizer([" ".join(WORDS)] * 10, 300)
    rows = [{"prompt": " ".join(WORDS[: 3 + n % 9]), "completion": " ".join(WORDS[: 1 + n % 4])} for n in range(16)]
    settings = Training(epochs=2, batch_size=4, max_length=LENGTH, evaluations=1)
    model = random_model(architecture.configure(shape, 0), 0)
    with Counter() as counter:
        fine_tune(new_job(settings, Runtime(device="cpu")), model, tokenizer, rows, settings, rows[:4])
    lengths = tuple(
        (len(tokenizer(row["prompt"])["input_ids"]), len(tokenizer(row["completion"])["input_ids"]) + 1) for row in rows
    )
    how = fused_head(Runtime(device="cpu"), settings)
    data = [Data(16, lengths)], [Data(4, lengths[:4])]
    estimated = training(of_shape(architecture, shape), data[0], settings, how, data[1])
    assert counter.recorded == counter.get_total_flops()
    assert estimated.flops == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.parametrize("family", SHAPES)
def test_answers_with_a_cache(family):
    architecture, shape, _ = chain(family)
    model, known = random_model(architecture.configure(shape, 0), 0).eval(), of_shape(architecture, shape)
    tokenizer = make_tokenizer([" ".join(WORDS)] * 10, 300)
    tokenizer.eos_token = None  # no answer ends early
    with Counter() as counter:
        answer(model, tokenizer, ["the old city", "the old city"], 9, 0.0, 0)
    asked = len(tokenizer("the old city")["input_ids"])
    assert counter.recorded == counter.get_total_flops() == known.forward.generation(2, asked, 9)


def test_rollouts_of_two_models():
    architecture, shape, taught_by = chain("gpt2")
    models = {
        name: random_model(architecture.configure(each, 0), 0).eval()
        for name, each in (("student", shape), ("teacher", taught_by))
    }
    prompts = [torch.arange(5), torch.arange(9), torch.arange(3)]
    with Counter() as counter:
        sample(models, {"student": 0.8, "teacher": 0.2}, prompts, [12, 7, 12], end_ids=[499], seed=0)
    assert counter.recorded == counter.get_total_flops() > 0


def test_a_family_without_a_table_is_counted_by_its_parameters():
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, ffn_dim=32, num_attention_heads=2, word_embed_proj_dim=16
    )
    model = count_calls(OPTForCausalLM(config)).eval()
    with Counter() as counter, torch.no_grad():
        model(torch.ones(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 4))
    rest = model.num_parameters() - 50 * 16
    assert counter.recorded == 2 * 4 * (rest + 50 * 16) and counter.tokens == 4


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", SHAPES)
def test_what_a_block_keeps_for_its_backward_pass(family, padded):
    """Counted in the graph: the difference between two layers and one."""
    architecture, shape, _ = chain(family)
    rows, kept = 4, {}
    mask = torch.ones(rows, LENGTH, dtype=torch.long)
    mask[0, -5:] = 0 if padded else 1
    for layers in (1, 2):
        model = random_model(architecture.configure(shape.model_copy(update={"layers": layers}), 0), 0).train()
        own, found = {value.untyped_storage().data_ptr() for value in model.parameters()}, {}

        def keep(value, own=own, found=found):
            storage = value.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = (storage.nbytes(), value)
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            model.base_model(input_ids=torch.ones(rows, LENGTH, dtype=torch.long), attention_mask=mask, use_cache=False)
        kept[layers] = sum(size for size, _ in found.values()) / (4 * rows * LENGTH)
    expected = saved_values(architecture.table, architecture.sizes(shape), padded)
    hidden_by_mask = LENGTH * padded  # a mask's own values: small where sequences are shorter than widths
    assert kept[2] - kept[1] - hidden_by_mask == pytest.approx(expected, rel=0.02)
