"""What jobs have to do: the study's jobs, data as far as they are there, numbers that are marked where they are not sure."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from colpipe.config.loading import load_study
from colpipe.config.parts import Architecture, Shape
from colpipe.cost import workload
from colpipe.cost.inputs import (
    ASSUMED,
    AT_MOST,
    EXACT,
    UNKNOWN,
    Data,
    corpus,
    instructions,
    longest,
    mixed,
    model_in,
    of_shape,
    texts,
    tokens_of,
    whole_split,
)
from colpipe.cost.passes import fitting, measuring
from colpipe.jobs.artifacts import write_json
from colpipe.pipeline.plan import Plan
from tests.conftest import STUDY


@pytest.fixture
def plan(study, inputs, tmp_path, monkeypatch):
    """In a folder of its own, where nothing is there yet."""
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    return lambda **changes: Plan(load_study({**study, **changes}, "study"))


def test_every_job_of_a_study_once_and_inputs_first(plan):
    made = plan()
    found = made.jobs()
    places = {job.folder: place for place, job in enumerate(found)}
    assert len(places) == len(found)
    for job in found:
        if not job.rule.startswith("fetch"):
            assert all(places[parent] < places[job.folder] for _, parent in made.parents(job.rule, job.wildcards))
    counts = {rule: sum(job.rule == rule for job in found) for rule in ("distill", "assemble", "recover", "evaluate")}
    assert counts == {"distill": 3, "assemble": 4, "recover": 4, "evaluate": 12}


def test_training_on_blocks_by_hand(plan):
    """1024 tokens once, in blocks of 64: GPT-2 of 4 layers and 32 channels, 512 tokens."""
    pretrain = {**STUDY["stages"]["pretrain"], "evaluations": 0}
    done = plan(stages={**STUDY["stages"], "pretrain": pretrain}).work("pretrain", SimpleNamespace(start="bridge"))
    layers = 2 * 4 * 12 * 32 * 32 + 64 * 4 * 4 * 32  # matrices, and scores with the 64 positions of a block
    assert done.flops == 3 * 16 * (64 * layers + 63 * 2 * 32 * 512)
    assert done.tokens == 1024 and done.bound == EXACT


def test_what_is_not_there_is_marked(plan, study):
    study["models"]["llama"] = {"source": {"hub": "owner/llama"}}
    made = plan()
    assert (
        made.work("recover", SimpleNamespace(ancestor="llama", desnet="upper", init="nested", budget="512")).bound
        == EXACT
    )
    assert made.work("bridge", SimpleNamespace(ancestor="llama")).bound == AT_MOST
    assert model_in(made, made.start("llama")).parameters == UNKNOWN


def test_a_model_that_is_a_folder_here_is_known_before_it_is_fetched(plan):
    made = plan()
    assert model_in(made, made.start("llama")).parameters == 37792


def test_a_fetched_model_is_read_from_its_configuration(plan, inputs):
    made = plan()
    folder = Path(made.start("llama"))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text((inputs / "llama" / "config.json").read_text())
    write_json(folder / "manifest.json", {"files": {}})
    found = model_in(made, str(folder))
    assert found.sizes["group"] == 2 and found.vocabulary == 300
    embedding, block = 300 * 32, 32 * (32 + 2 * 16 + 32 + 3 * 64) + 2 * 32
    assert found.parameters == 2 * embedding + 2 * block + 32


def test_prepared_rows_are_measured(plan):
    made = plan()
    least = made.work("distill", SimpleNamespace(ancestor="llama", member="small"))
    folder = Path(made.data("describe"))
    folder.mkdir(parents=True)
    row = {"instruction": "Say it.", "input": "", "output": "It is said."}
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    write_json(folder / "manifest.json", {"counts": {split: {"rows": 2} for split in ("train", "validation")}})
    stories = Path(made.data("stories"))
    stories.mkdir(parents=True)
    write_json(
        stories / "manifest.json", {"counts": {"train": {"tokens": 1000, "bytes": 3000}, "validation": {"tokens": 100}}}
    )
    done = made.work("distill", SimpleNamespace(ancestor="llama", member="small"))
    assert done.bound == EXACT and done.tokens <= least.tokens


def test_what_compares_likelihoods_reads_every_continuation_and_generates_nothing(plan):
    """4 rows of at most 110 tokens: 4 choices each where no row is there, then one, or a last word, each."""
    task = {"instructions": "boolq", "max_new_tokens": 0, "likelihood": True}
    made, without = plan(tasks={"boolq": task}), plan(tasks={})
    where = SimpleNamespace(model="chain/llama/large")
    before = without.work("evaluate", where)
    assert made.work("evaluate", where).tokens - before.tokens == pytest.approx(8 * 4 * 110)
    folder = Path(made.data("boolq"))
    folder.mkdir(parents=True)
    texts = {"contexts": ["one"], "continuations": ["word"]}
    row = {"instruction": "", "input": "one", "output": "word", "likelihood": texts}
    (folder / "test.jsonl").write_text(4 * (json.dumps(row) + "\n"))
    write_json(folder / "manifest.json", {"counts": {"test": {"rows": 4}}})
    read = made.work("evaluate", where).tokens - before.tokens
    generated = plan(tasks={"boolq": {**task, "max_new_tokens": 3, "fine_tune": None}}).work("evaluate", where)
    assert 0 < read < 4 * 110 and generated.tokens - before.tokens > 1.5 * read


def test_of_held_out_text_so_many_tokens_are_read(plan, study):
    where, tokens = SimpleNamespace(model="chain/llama/large"), []
    for asked in ({"tokens": 64, "max_length": 32}, {"tokens": 20, "max_length": 32}, {"tokens": 10**9}, {}):
        made = plan(tasks={}, stages={**study["stages"], "evaluate": {"continued": [], **asked}})
        folder = Path(made.data("stories"))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "manifest.json", {"counts": {"test": {"tokens": 1280, "bytes": 3000}}})
        tokens.append(made.work("evaluate", where).tokens)
    assert tokens == [64, 32, 1280, 1280]


def sampled(plan, **changes):
    """The estimate of a small study whose rows are not prepared: 6 steps of 2 rows by MiniLLM, 4 passes over 4 prompts."""
    training = {"objective": "minillm", "data": ["describe"], "steps": 6, "batch_size": 2, "max_length": 100}
    made = plan(stages={**STUDY["stages"], "distill": {**training, "evaluations": 0, **changes}})
    return made.work("distill", SimpleNamespace(ancestor="llama", member="small"))


def test_rollouts_count_and_are_no_larger_than_the_steps_need(plan):
    """Prompts are as long as `max_length` lets them: 99 tokens, and one more."""
    learnt, sampled_tokens = 2 * 12 * 100, 2 * 4 * 99  # by student and teacher each
    done = sampled(plan)
    assert done.tokens == learnt + sampled_tokens and done.bound != EXACT
    whole = sampled(plan, steps=5000)  # 10,000 rows: 9 rollouts of 256, and one of 196 for the 784 rows that are left
    assert whole.tokens == 2 * 10_000 * 100 + 2 * (9 * 256 + 196) * 99


@pytest.mark.parametrize("objective", ["reverse_kl", "minillm", "seqkd"])
def test_a_teacher_in_half_precision_takes_half_the_memory(plan, objective):
    plain, half = (sampled(plan, objective=objective, precision=precision) for precision in ("float32", "bfloat16"))
    assert half.read == plain.read and half.flops == plain.flops
    # its weights, and at the peak of a rollout its keys and values
    assert plain.memory - half.memory >= 2 * plain.read if objective != "minillm" else plain.memory > half.memory


def test_an_ancestor_that_answers_or_is_asked_once_too(plan, study):
    study["models"]["llama"] = {"source": {"hub": "owner/llama"}}
    ancestor = SimpleNamespace(ancestor="llama")
    answers = {"instructions": "describe", "max_new_tokens": 8}
    made = [
        plan(stages={**STUDY["stages"], "answers": {**answers, "precision": each}}) for each in ("float32", "bfloat16")
    ]
    plain, half = (each.work("bridge_answers", ancestor) for each in made)
    assert plain.memory - half.memory == 2 * UNKNOWN


def test_evaluations_of_a_recovery_count(plan):
    def work(**changes):
        recover = {**STUDY["stages"]["recover"], **changes}
        made = plan(stages={**STUDY["stages"], "recover": recover})
        return made.work("recover", SimpleNamespace(ancestor="llama", desnet="upper", init="nested", budget="512"))

    plain = {key: value for key, value in STUDY["stages"]["recover"].items() if key != "evaluations"}
    made = plan(stages={**STUDY["stages"], "recover": plain})
    default = made.work("recover", SimpleNamespace(ancestor="llama", desnet="upper", init="nested", budget="512"))
    none, one = work(evaluations=0), work(evaluations=1)
    assert default.tokens - none.tokens == 2.5 * (one.tokens - none.tokens) > 0  # four and the start, one and the start


def test_a_recovery_that_may_end_early_counts_whole_and_its_ancestor_once(plan):
    """By hand: 4 blocks of 32 are in 128 tokens of validation text; the bridge of 4 layers and 32 channels, 512 tokens."""

    def work(**changes):
        made = plan(stages={**STUDY["stages"], "recover": {**STUDY["stages"]["recover"], **changes}})
        counts = {split: {"tokens": 1024, "bytes": 4096} for split in ("train", "test")}
        counts["validation"] = {"tokens": 128, "bytes": 512}
        folder = Path(made.data("stories"))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "manifest.json", {"counts": counts})
        return made.work("recover", SimpleNamespace(ancestor="llama", desnet="upper", init="nested", budget="512"))

    plain, loss, share = work(), work(stop_at=3.5), work(stop_at=0.95)
    assert (plain.bound, loss.bound, share.bound) == (EXACT, AT_MOST, AT_MOST)
    assert (loss.flops, loss.tokens, loss.memory) == (plain.flops, plain.tokens, plain.memory)
    layers = 2 * 4 * 12 * 32 * 32 + 32 * 4 * 4 * 32  # matrices, and scores with the 32 positions of a block
    assert share.flops - plain.flops == 4 * (32 * layers + 31 * 2 * 32 * 512)
    assert share.tokens - plain.tokens == 4 * 32 and share.read > 0 == plain.read


def test_a_batch_is_as_long_as_its_longest_row():
    data = [Data(3, ((1, 9), (1, 19), (1, 29)))]
    assert longest(data, 1) == pytest.approx(20)
    pairs = [max(a, b) for a in (10, 20, 30) for b in (10, 20, 30)]
    assert longest(data, 2) == pytest.approx(sum(pairs) / 9)
    assert longest(data, 1000) == pytest.approx(30)


def test_a_fit_runs_the_source_once_and_the_cut_twice_by_hand(plan, study):
    """1024 tokens in blocks of 64; a system for the attention's and one for the feed-forward part's output of each layer."""
    study["initialisers"]["fit"] = {"kind": "linit"}
    study["stages"]["fit"] = {"tokens": 1024, "max_length": 64}
    made = plan()
    done = made.work("assemble", SimpleNamespace(ancestor="llama", desnet="lower", init="fit"))
    large, small = (
        16 * 64 * (2 * layers * 12 * 16 * 16 + 64 * 4 * layers * 16) for layers in (3, 2)
    )  # matrices, and scores with the 64 positions of a block
    systems = 2 * sum(2 * 1024 * (width + 2 * 16) * width + width**3 for width in (16, 64))
    assert done.flops == large + small + systems
    assert done.tokens == 2 * 1024 and done.bound == EXACT
    assert made.inputs_of("assemble", SimpleNamespace(ancestor="llama", desnet="lower", init="fit"))["corpus"]
    study["chain"]["medium"]["start"] = "fit"
    before, fitted = (
        each.work("distill", SimpleNamespace(ancestor="llama", member="medium")) for each in (made, plan())
    )
    assert fitted.tokens == before.tokens + 2 * 1024 and fitted.flops > before.flops


def test_a_fit_and_an_order_are_as_fast_as_their_precision_says(plan, study):
    study["initialisers"]["fit"] = {"kind": "linit"}
    study["ancestors"]["bridge"] = {"model": "bridge", "select": "rank"}
    names = SimpleNamespace(ancestor="llama", desnet="lower", init="fit")
    for precision in ("float32", "bfloat16"):
        study["stages"] |= {
            stage: {"tokens": 1024, "max_length": 64, "precision": precision} for stage in ("fit", "order")
        }
        made = plan()
        fitted, order = made.work("assemble", names), made.work("order", SimpleNamespace(ancestor="bridge"))
        passes = [16 * 64 * (2 * layers * 12 * 16 * 16 + 64 * 4 * layers * 16) for layers in (3, 2)]
        changes = 2 * sum(2 * 1024 * 16 * width for width in (16, 64))
        model = of_shape(made.study.architecture, made.study.models["bridge"].shape)
        halves = sum(passes) + changes, 2 * model.forward.layers(16, 64)
        assert (fitted.in_bfloat16, order.in_bfloat16) == (halves if precision == "bfloat16" else (0, 0))
        assert 0 < halves[0] < fitted.flops and 0 < halves[1] < order.flops
        assert fitted.precision == order.precision == "float32"  # the weights that main memory holds
        assert sum(order.flops_by_precision.values()) == order.flops


def test_a_fit_before_a_training_keeps_its_own_precision(plan, study):
    study["stages"]["fit"] = {"tokens": 1024, "max_length": 64, "precision": "bfloat16"}
    names = SimpleNamespace(ancestor="llama", member="medium")
    assert plan().work("distill", names).in_bfloat16 == 0
    study["chain"]["medium"]["start"] = "fit"
    assert 0 < plan().work("distill", names).in_bfloat16 < plan().work("distill", names).flops
    study["stages"]["distill"]["precision"] = "bfloat16"
    study["stages"]["fit"]["precision"] = "float32"
    done = plan().work("distill", names)
    assert 0 < done.flops - done.in_bfloat16 < done.in_bfloat16 and done.precision == "bfloat16"


def test_what_is_ordered_is_run_layer_by_layer_once_more_and_its_units_are_put_into_order():
    architecture = Architecture(family="llama", vocabulary=512, positions=128)
    model = of_shape(architecture, Shape(layers=3, heads=2, hidden=16, ffn=48))
    done = measuring(model, Data(16, ((1, 63),)), 8)
    sums = 2 * 1024 * (7 * 16**2 + 3 * 48**2) + 2 * 3 * 48**3
    assert done.flops == 2 * model.forward.layers(16, 64) + sums and done.tokens == 2 * 1024
    assert done.memory == 4 * (model.parameters + 2 * 8 * 64 * 64) + 40 * 48**2
    unknown = measuring(model._replace(sizes=None), Data(16, ((1, 63),)), 8)
    assert unknown.flops == 2 * model.forward.layers(16, 64)


def test_an_order_is_checked_on_a_part_of_its_tokens_and_on_a_block_at_least(plan, study, monkeypatch):
    study["ancestors"] = {"bridge": {"model": "bridge", "select": "rank"}}
    names = SimpleNamespace(ancestor="bridge")

    def checks(most: int, **order) -> float:
        """FLOPs of what is checked."""
        monkeypatch.setattr(workload, "ORDER_CHECKED", most)
        made = plan(stages={**study["stages"], "order": {"corpus": "stories", **order}})
        model = of_shape(made.study.architecture, made.study.models["bridge"].shape)
        measured = measuring(model, Data(order["tokens"] // order["max_length"], ((1, order["max_length"] - 1),)), 8)
        return made.work("order", names).flops - measured.flops

    assert checks(256, tokens=1024, max_length=64) == checks(1024, tokens=1024, max_length=64) / 4
    assert checks(32, tokens=1024, max_length=64) == checks(1024, tokens=1024, max_length=64) / 16


def test_attention_and_feed_forward_of_gpt_neox_are_fitted_in_one_system():
    architecture = Architecture(family="gpt_neox", vocabulary=512, positions=128)
    large, small = (of_shape(architecture, Shape(layers=layers, heads=2, hidden=16)) for layers in (3, 2))
    data = Data(16, ((1, 63),))
    passes = [model.forward.layers(16, 64) for model in (large, small)]
    done = fitting(large, small, data, 8)
    assert done.flops == sum(passes) + 2 * (2 * 1024 * (80 + 2 * 16) * 80 + 80**3)
    held = large.parameters + small.parameters + 8 * 8 * 64 * 80
    assert done.memory == 4 * held + 8 * (5 * 80 * 80 + 4 * 80 * 16)


def test_a_fit_holds_its_source_in_float32_and_the_system_of_its_widest_projection(plan, study):
    study["initialisers"]["fit"] = {"kind": "linit"}
    study["stages"]["fit"] = {"tokens": 1024, "max_length": 64}
    made = plan()
    done = made.work("assemble", SimpleNamespace(ancestor="llama", desnet="lower", init="fit"))
    source, cut = (512 * 16 + 128 * 16 + layers * 12 * 16 * 16 for layers in (3, 2))  # GPT-2, but for gains and biases
    activations, system = 8 * 8 * 64 * 64, 5 * 64 * 64 + 4 * 64 * 16
    assert done.memory == pytest.approx(4 * (source + cut + activations) + 8 * system, rel=0.02)
    assert done.read == pytest.approx(source, rel=0.05)


def test_a_text_here_is_known_by_its_size_and_a_test_split_shorter_than_a_block_counts(plan, study, inputs):
    """Four bytes a token, the data set's own share of them held out, in one block of all that there is."""
    study["datasets"]["articles"] |= {"test": 0.02, "validation": 0.04}
    tokens = (inputs / "articles.json").stat().st_size / 4
    stages = {**STUDY["stages"], "evaluate": {"continued": []}}
    made = plan(architecture={**study["architecture"], "positions": 8192}, tasks={}, stages=stages)
    model = of_shape(made.study.architecture, made.study.chain["large"].shape)
    scored = made.work("evaluate", SimpleNamespace(model="chain/llama/large"))
    assert scored.tokens == int(0.02 * tokens) and scored.flops > 2 * scored.tokens * model.forward.layers(1, 1) / 2
    assert corpus(made, "stories", "validation", 10).rows == pytest.approx(0.04 * tokens / 10, abs=1)
    assert corpus(made, "stories", "train", 10).rows == pytest.approx(0.94 * tokens / 10, abs=1)


def test_texts_that_are_continued_count_twice_greedy_and_sampled(plan):
    """Prompts of 5 and 10 tokens, at four bytes a token, in one batch."""

    def work(**scores):
        made = plan(tasks={}, stages={**STUDY["stages"], "evaluate": scores})
        return made.work("evaluate", SimpleNamespace(model="chain/llama/large"))

    none, some = work(continued=[]), work(continued=["x" * 20, "y" * 40], continued_tokens=9)
    mean = 5 / 4 + 10 * 3 / 4  # of the longest of two prompts, drawn from these two
    assert some.tokens - none.tokens == pytest.approx(2 * 2 * (mean + 8))
    model = of_shape(plan().study.architecture, plan().study.chain["large"].shape)
    assert some.flops - none.flops == pytest.approx(model.forward.generation(4, mean, 9))


def test_an_ancestor_that_is_not_here_is_larger_than_its_chain(plan, study):
    study["models"]["llama"] = {"source": {"hub": "owner/gpt2"}}
    study["ancestors"]["llama"].pop("bridge")
    made = plan()
    first = made.study.parameters(made.study.chain["large"].shape)
    assert model_in(made, made.start("llama")).parameters == 2 * first


def test_what_is_written_and_mixed_is_known_before_it_is_there(plan, study):
    """4,000 training tokens in documents of 40, validation and test text in proportion to the openings' (0.1 / 0.8)."""
    written = {"openings": "stories", "opening": 8, "max_new_tokens": 31, "tokens": 4000, "batch_size": 4}
    corpora = {
        **study["corpora"],
        "own": {"written": written},
        "both": {"data": {"stories": 1, "own": 3}},
    }
    made = plan(corpora=corpora)
    assert corpus(made, "own", "train", 50) == Data(80, ((1, 49),), EXACT)
    assert tokens_of(made, "own", "test") == (pytest.approx(500), ASSUMED)
    stories = tokens_of(made, "stories", "train")[0]
    assert stories > 4000 and tokens_of(made, "both", "train") == (pytest.approx(4000 / 0.75), ASSUMED)
    done = made.work("write_corpus", SimpleNamespace(corpus="own"))
    assert done.tokens == pytest.approx(125 * (8 + 30))  # the last token of each is read by nobody
    assert done.bound == ASSUMED and done.read == 37792


def test_weights_decide_how_many_blocks_there_are(plan, study):
    for name, counts in (("stories", _counts(6400, 640)), ("more", _counts(3200, 3200))):
        folder = Path("results/tiny/data") / name
        folder.mkdir(parents=True)
        write_json(folder / "manifest.json", {"counts": counts})
    made = plan(corpora={**study["corpora"], "more": {"dataset": "articles"}})
    rows = {
        split: [each.rows for each in mixed(made, ["more", "stories"], split, 32, {"more": 1, "stories": 4})]
        for split in ("train", "validation")
    }
    assert rows == {"train": [50, 200], "validation": [5, 20]}
    assert [each.rows for each in mixed(made, ["more", "stories"], "train", 32)] == [100, 200]


def _counts(train: int, validation: int) -> dict:
    return {"train": {"tokens": train, "bytes": train}, "validation": {"tokens": validation, "bytes": validation}}


def test_begin_tokens_count(plan):
    """A prepared corpus says that the chain's tokenizer puts one there: blocks have one less of text, rows one more."""
    made = plan()
    describe, stories = Path(made.data("describe")), Path(made.data("stories"))
    describe.mkdir(parents=True)
    row = {"instruction": "Say it.", "input": "", "output": "It is said."}
    rows = [row, {**row, "prompt_ids": [7, 8, 9]}]  # with the one that its chat template wrote
    (describe / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    write_json(describe / "manifest.json", {"counts": {"train": {"rows": 2}}})
    stories.mkdir(parents=True)
    counts = {"counts": {"train": {"tokens": 1000, "bytes": 3000}}}
    found = {}
    for number, entry in enumerate(({}, {"begin": 5})):
        write_json(stories / "manifest.json", {**counts, **entry})
        os.utime(stories / "manifest.json", (number, number))
        blocks = [corpus(made, "stories", "train", 50, tokens) for tokens in (None, 500)]
        whole = whole_split(made, "stories", "train", 10_000)
        lengths = [prompt for prompt, _ in instructions(made, "describe", "train").lengths]
        asked = texts(made, ["Once upon a time"]).lengths[0][0]
        found[bool(entry)] = [each.rows for each in blocks], sum(whole.lengths[0]), whole.rows, lengths, asked
    assert found[False][:3] == ([20, 10], 1000, 1) and found[True][:3] == ([1000 // 49, 10], 1001, 1)
    assert found[True][3] == [found[False][3][0] + 1, 3] and found[True][4] == found[False][4] + 1
