"""`colpipe.linit`, `colpipe.initialise`, `colpipe.fit` and `colpipe.scan`, as a notebook calls them."""

import copy
import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

import colpipe
from colpipe import api
from colpipe.config.parts import Architecture, Shape
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import MANIFEST, fingerprint, write_json
from colpipe.learngene.fit import fitted
from colpipe.learngene.importance import measure, reorder, signal_gain
from colpipe.learngene.inheritance import Inheritance, inheritance, inherited_entries
from colpipe.learngene.initialisers import KINDS
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.weights import Weights
from tests.conftest import make_model
from tests.unit.learngene.layouts import stored
from tests.unit.learngene.tiny import assert_same, distance, logits

SHAPE = {"layers": 4, "heads": 3, "hidden": 12, "ffn": 30}
GROUPED_SHAPE = {"layers": 4, "heads": 6, "kv_heads": 3, "hidden": 12, "ffn": 30}


def first_logit(model) -> float:
    """A score like any other: it differs from model to model."""
    return logits(model)[0, 0, 0].item()


def copied(folder: Path, to: Path, **manifest) -> Path:
    """A copy of a model folder, with a manifest where one is given."""
    shutil.copytree(folder, to)
    if manifest:
        write_json(to / MANIFEST, {"files": {}, **manifest})
    return to


@pytest.fixture
def descended(gpt2, tmp_path):
    """The neighbours, with manifests: the smaller's layers came from the larger's 0 and 2, the larger's are ranked."""
    large = copied(gpt2.large_folder, tmp_path / "large", ranking=[0, 2, 1, 4, 3])
    parents = {"teacher": fingerprint(large)}
    return copied(gpt2.small_folder, tmp_path / "small", layer_map=[0, 2], parents=parents), large


def test_linit_returns_a_stock_model(gpt2):
    model = colpipe.linit(gpt2.small_folder, gpt2.large_folder, SHAPE, alpha=0.3)
    assert type(model) is GPT2LMHeadModel and not model.training
    expected = linit(*gpt2.weights, gpt2.sizes(), 0.3, "paper")
    assert distance(model, expected.load()) == 0
    assert model.num_parameters() == expected.parameters
    assert distance(colpipe.linit(str(gpt2.small_folder), gpt2.large, SHAPE, alpha=0.3), model) == 0


def test_linit_of_every_family_by_default(neighbours):
    shape = GROUPED_SHAPE if "group" in neighbours.weights[0].family.keys else SHAPE
    model = colpipe.linit(neighbours.small_folder, neighbours.large_folder, shape, method="nested")
    count, small, large = (one.num_parameters() for one in (model, neighbours.small, neighbours.large))
    alpha = (large - count) / (large - small)
    assert 0 < alpha < 1
    assert distance(model, linit(*neighbours.weights, neighbours.sizes(), alpha, "nested").load()) == 0


def test_linit_writes_a_folder_that_says_how_it_was_made(descended, tmp_path):
    small, large = descended
    make_words().save_pretrained(small)
    out = colpipe.linit(small, large, SHAPE, "auto", "nested", compensate=0.5, out=tmp_path / "desnet")
    assert out == tmp_path / "desnet"
    manifest = json.loads((out / MANIFEST).read_text())
    model = colpipe.linit(small, large, SHAPE, "auto", "nested", compensate=0.5)
    assert distance(AutoModelForCausalLM.from_pretrained(out), model) == 0
    assert manifest["stage"] == "assemble"
    assert manifest["sources"] == {"smaller": str(small), "larger": str(large)}
    assert manifest["parents"] == {"smaller": fingerprint(small), "larger": fingerprint(large)}
    files = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(manifest["files"]) == files
    assert (manifest["method"], manifest["compensate"]) == ("nested", 0.5)
    assert 0 < manifest["alpha"] < 1
    assert manifest["parameters"] == model.num_parameters()
    both = {"vocabulary": 50, "position": 16}  # how many of the leading ones
    assert manifest["index_maps"] == {
        "smaller": {**both, "layer": [0, None, 1, None], "hidden": 8, "head": 2, "ffn": 20},
        "larger": {**both, "layer": [0, 1, 2, 4], "hidden": 12, "head": 3, "ffn": 30},
    }
    assert not list(tmp_path.glob("*.part"))


def test_loaded_models_leave_no_fingerprint(gpt2, tmp_path):
    out = colpipe.linit(gpt2.small, gpt2.large_folder, SHAPE, 0.5, out=tmp_path / "desnet")
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["sources"] == {"smaller": "a loaded model", "larger": str(gpt2.large_folder)}
    assert manifest["parents"] == {"larger": fingerprint(gpt2.large_folder)}


def test_the_same_call_writes_the_same_bytes(gpt2, tmp_path):
    one, other = (
        colpipe.linit(gpt2.small_folder, gpt2.large_folder, SHAPE, 0.3, "aligned", out=tmp_path / name)
        for name in ("one", "other")
    )
    assert fingerprint(one) == fingerprint(other)
    assert (one / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes()


def test_writing_again_replaces_what_was_made_before(gpt2, tmp_path):
    for alpha in (0.2, 0.8):
        out = colpipe.linit(gpt2.small_folder, gpt2.large_folder, SHAPE, alpha, out=tmp_path / "desnet")
    expected = linit(*gpt2.weights, gpt2.sizes(), 0.8)
    assert_same(stored(out), dict(expected.tensors()))


def test_files_that_are_not_its_own_survive(gpt2, tmp_path):
    (tmp_path / "models" / "other").mkdir(parents=True)
    for name in ("models/notes.txt", "models/other/model.safetensors"):
        (tmp_path / name).write_text("years of work")
    with suppress(ColpipeError):  # a refusal would do
        colpipe.linit(gpt2.small_folder, gpt2.large_folder, SHAPE, 0.5, out=tmp_path / "models")
    for name in ("models/notes.txt", "models/other/model.safetensors"):
        assert (tmp_path / name).exists(), name


def layers_taken(small, large, tmp_path, **arguments) -> tuple:
    out = colpipe.linit(small, large, SHAPE, method="nested", out=tmp_path / "desnet", **arguments)
    maps = json.loads((out / MANIFEST).read_text())["index_maps"]
    return maps["smaller"]["layer"], maps["larger"]["layer"]


def test_the_layers_of_neighbours_correspond_by_inheritance(descended, tmp_path):
    small, large = descended
    assert layers_taken(small, large, tmp_path, alpha=0.3) == ([0, None, 1, None], [0, 1, 2, 4])


def test_a_layer_map_to_another_teacher_is_not_used(descended, gpt2, tmp_path):
    small, _ = descended
    retrained = copied(gpt2.large_folder, tmp_path / "retrained")
    (retrained / "generation_config.json").write_text("{}")  # not the bytes that the smaller remembers
    assert layers_taken(small, retrained, tmp_path, alpha=0.3) == ([0, None, None, 1], [0, 1, 3, 4])


def test_layers_are_added_by_the_ranking(gpt2, tmp_path):
    large = copied(gpt2.large_folder, tmp_path / "large", ranking=[0, 2, 1, 4, 3])
    assert layers_taken(gpt2.small_folder, large, tmp_path, alpha=0.3) == ([0, None, None, 1], [0, 1, 2, 4])


def test_a_search_uses_the_layer_map_too(descended, tmp_path):
    taken = layers_taken(*descended, tmp_path, alpha="search", score=first_logit)
    assert taken == ([0, None, 1, None], [0, 1, 2, 4])


def test_a_scan_uses_the_layer_map_too(descended):
    small, large = descended
    model = colpipe.linit(small, large, SHAPE, 0.3, "nested")
    row = colpipe.scan(small, large, [SHAPE], first_logit, alphas=[0.3])[0]
    assert row["loss"] == first_logit(model)


def test_widths_that_are_not_given_can_be_quantised(tmp_path):
    chain = Architecture(family="llama", vocabulary=50, positions=16)
    for name, layers, heads, ffn in (("small", 2, 4, 684), ("large", 3, 8, 1365)):
        shape = Shape(layers=layers, heads=heads, head_dim=64, hidden=64 * heads, ffn=ffn)
        make_model(tmp_path / name, chain, shape, seed=1)
    ends = tmp_path / "small", tmp_path / "large"
    planned = colpipe.linit(*ends, "4M", method="nested").config
    assert (planned.hidden_size % 64, planned.intermediate_size % 64) == (0, 0)
    assert abs(chain.table.parameters(chain.table.sizes(planned.to_dict()), False) / 4e6 - 1) <= 0.01
    given = {"layers": 2, "heads": 6, "hidden": 384}
    assert (
        colpipe.linit(*ends, given, method="nested").config.intermediate_size == 1024
    )  # in proportion, it has 1023.75
    assert colpipe.linit(*ends, {**given, "ffn": 1000}, method="nested").config.intermediate_size == 1000


def test_inheritance_reads_a_manifest(descended, gpt2):
    small, large = descended
    assert inheritance(small).layer_map == inheritance(small, large).layer_map == [0, 2]
    assert inheritance(small, gpt2.small_folder).layer_map is None
    assert inheritance(large) == Inheritance(None, [0, 2, 1, 4, 3], None)
    assert inheritance(gpt2.small_folder) == Inheritance()


def test_what_a_member_passes_on():
    source = Inheritance([5, 6, 7], [2, 0, 1], [0.5, 1.0])
    assert inherited_entries(source, [0, 2]) == {"layer_map": [0, 2], "ranking": [1, 0], "energy": [0.5, 1.0]}
    assert inherited_entries(Inheritance(), [0, 2]) == {"layer_map": [0, 2]}


def test_a_search_takes_the_minimum_and_loads_each_neighbour_once(gpt2, tmp_path, monkeypatch):
    read, loads, losses = AutoModelForCausalLM.from_pretrained, [], []
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda source, *arguments, **more: loads.append(Path(source)) or read(source, *arguments, **more),
    )

    def score(model) -> float:
        losses.append(first_logit(model))
        return losses[-1]

    arguments = {"method": "nested", "alpha": "search", "score": score}
    out = colpipe.linit(gpt2.small_folder, gpt2.large_folder, SHAPE, out=tmp_path / "desnet", **arguments)
    assert loads == [gpt2.small_folder, gpt2.large_folder]
    assert len(losses) == 33  # 11 alphas, 3 compensations
    assert first_logit(read(out)) == min(losses)
    manifest = json.loads((out / MANIFEST).read_text())
    again = linit(*gpt2.weights, gpt2.sizes(), manifest["alpha"], "nested", manifest["compensate"])
    assert first_logit(again.load()) == min(losses)


def test_a_search_needs_a_score(gpt2):
    with pytest.raises(ColpipeError, match="alpha 'search' needs score="):
        colpipe.linit(gpt2.small, gpt2.large, SHAPE, alpha="search")


def test_a_scan_orders_the_candidates(gpt2, monkeypatch):
    read, loads = AutoModelForCausalLM.from_pretrained, []
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda source, *arguments, **more: loads.append(Path(source)) or read(source, *arguments, **more),
    )
    shapes = [SHAPE, {"layers": 3, "heads": 2, "hidden": 8}]
    rows = colpipe.scan(gpt2.small_folder, gpt2.large_folder, shapes, first_logit, [0.2, "auto"], [0.0, 1.0])
    assert loads == [gpt2.small_folder, gpt2.large_folder]
    assert len(rows) == 8 and {row["method"] for row in rows} == {"nested"}
    assert [row["loss"] for row in rows] == sorted(row["loss"] for row in rows)
    top = {key: rows[0][key] for key in ("layers", "heads", "hidden", "ffn")}
    arguments = {"alpha": rows[0]["alpha"], "method": "nested", "compensate": rows[0]["compensate"]}
    model = colpipe.linit(gpt2.small, gpt2.large, top, **arguments)
    assert first_logit(model) == rows[0]["loss"] and model.num_parameters() == rows[0]["parameters"]


def test_a_scan_has_fitted_cuts_of_the_larger(gpt2):
    shapes = [SHAPE, {"layers": 3, "heads": 2, "hidden": 8}]
    rows = colpipe.scan(gpt2.small, gpt2.large, shapes, first_logit, methods=["fit"], text=FIT_IDS)
    alone = [first_logit(colpipe.fit(gpt2.large, shape, FIT_IDS, select="even")) for shape in shapes]
    assert [row["loss"] for row in rows] == sorted(alone)
    assert {(row["method"], row["alpha"], row["compensate"]) for row in rows} == {("fit", None, None)}
    with pytest.raises(ColpipeError, match="method 'fit' needs a text to fit on"):
        colpipe.scan(gpt2.small, gpt2.large, shapes, first_logit, methods=["fit"])


def test_what_a_shape_leaves_out_follows_the_larger(llama, gpt2):
    config = colpipe.linit(llama.small, llama.large, {"layers": 3, "heads": 6, "hidden": 12}, 0.5).config
    assert (config.num_key_value_heads, config.head_dim, config.intermediate_size) == (3, 4, 30)
    config = colpipe.linit(gpt2.small, gpt2.large, {"layers": 3, "heads": 3, "hidden": 12}, 0.5).config
    assert config.n_inner == 30


def test_a_shape_object_is_a_shape(llama):
    full = Shape(**GROUPED_SHAPE, head_dim=4)
    assert distance(
        colpipe.linit(llama.small, llama.large, full, 0.5),
        colpipe.linit(llama.small, llama.large, GROUPED_SHAPE, 0.5),
    ) == 0  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({**SHAPE, "depth": 3}, "shape: depth: unknown; a shape has layers, heads, hidden, ffn, kv_heads, head_dim"),
        ({"layers": 4}, "shape: heads, hidden: missing"),
        ({**SHAPE, "hidden": 13}, "the target: gpt2 has no head_dim of its own"),
        ({**SHAPE, "kv_heads": 1}, "the target: kv_heads is 1 of 3 heads, but gpt2 has no grouped queries"),
        ({**SHAPE, "heads": 2}, "small: head_dim is 4, the target's is 6|large: head_dim is 4, the target's is 6"),
        ({**SHAPE, "layers": 6}, "large: layer is 5, the target's 6 is more than that"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(gpt2, tmp_path, shape, message):
    with pytest.raises(ColpipeError, match=message):
        colpipe.linit(gpt2.small_folder, gpt2.large_folder, shape, 0.5, out=tmp_path / "desnet")
    assert not list(tmp_path.iterdir())


def test_the_vocabulary_is_cropped_to_the_smaller_one(gpt2):
    padded = AutoModelForCausalLM.from_pretrained(gpt2.large_folder)
    padded.resize_token_embeddings(56)
    model = colpipe.linit(gpt2.small, padded, SHAPE, 0.5)
    assert model.config.vocab_size == 50
    assert distance(model, colpipe.linit(gpt2.small, gpt2.large, SHAPE, 0.5)) == 0


def make_words(*added: str, **more):
    """A tokenizer that knows 40 words, `w3` and so on, and what is added."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{id}": id for id in range(3, 40)}}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>", **more)
    made.add_tokens(list(added), special_tokens=True)
    return made


def with_tokenizer(folder: Path, to: Path, *added: str, settings: dict | None = None, **more) -> Path:
    """A copy of a model folder with a tokenizer, and generation settings where they are given."""
    make_words(*added, **more).save_pretrained(copied(folder, to))
    if settings is not None:
        (to / "generation_config.json").write_text(json.dumps(settings))
    return to


SAMPLED = {"bos_token_id": 1, "eos_token_id": [2, 7, 9], "do_sample": True, "temperature": 0.6}


@pytest.fixture
def speaking(gpt2, tmp_path):
    """The neighbours with a tokenizer, the larger with a chat template, ends of text and sampling of its own."""
    small = with_tokenizer(gpt2.small_folder, tmp_path / "small", settings={"eos_token_id": 2})
    template = "{{ messages[0]['content'] }}"
    return small, with_tokenizer(gpt2.large_folder, tmp_path / "large", settings=SAMPLED, chat_template=template)


def assert_accompanied(model, folder: Path) -> None:
    """It generates as the larger does, and a folder that it was saved to has the larger's tokenizer."""
    assert {key: getattr(model.generation_config, key) for key in SAMPLED} == SAMPLED
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("w3 w39 w1")["input_ids"] == [3, 39, 0] and tokenizer.chat_template
    assert AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id == [2, 7, 9]


@pytest.mark.parametrize("source", ["folders", "loaded models"])
def test_a_model_generates_as_the_larger_and_takes_its_tokenizer_along(speaking, tmp_path, source):
    pair = speaking if source == "folders" else tuple(map(AutoModelForCausalLM.from_pretrained, speaking))
    model = colpipe.linit(*pair, SHAPE, 0.5)
    model.save_pretrained(tmp_path / "saved")
    assert_accompanied(model, tmp_path / "saved")
    assert type(model) is GPT2LMHeadModel
    out = colpipe.linit(*pair, SHAPE, 0.5, out=tmp_path / "out")
    assert_accompanied(AutoModelForCausalLM.from_pretrained(out), out)
    subset = colpipe.initialise("subset", pair[1], SHAPE)
    subset.save_pretrained(tmp_path / "subset")
    assert_accompanied(subset, tmp_path / "subset")


def test_the_models_of_a_scan_are_accompanied_too(speaking, tmp_path):
    def score(model) -> float:
        model.save_pretrained(tmp_path / "scanned")
        assert_accompanied(model, tmp_path / "scanned")
        return 1.0

    assert len(colpipe.scan(*speaking, [SHAPE], score, [0.5])) == 1


def test_a_copy_of_a_model_saves_itself(speaking, tmp_path):
    twin = copy.deepcopy(colpipe.linit(*speaking, SHAPE, 0.5))
    with torch.no_grad():
        twin.transformer.wpe.weight.fill_(0.25)
    twin.save_pretrained(tmp_path / "twin")
    assert (AutoModelForCausalLM.from_pretrained(tmp_path / "twin").transformer.wpe.weight == 0.25).all()
    assert (tmp_path / "twin/tokenizer.json").exists()


def test_a_tokenizer_that_is_there_is_not_overwritten(speaking, tmp_path):
    make_words("<own>").save_pretrained(tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    colpipe.linit(*speaking, SHAPE, 0.5).save_pretrained(tmp_path / "saved")
    assert {name: (tmp_path / "saved" / name).read_bytes() for name in before} == before


def test_the_smallers_tokenizer_goes_along_where_the_larger_has_none(speaking, gpt2, tmp_path):
    (speaking[0] / "extra.tiktoken").write_text("")
    (speaking[0] / "tokenizer_own.py").write_text("")
    out = colpipe.linit(speaking[0], gpt2.large_folder, SHAPE, 0.5, out=tmp_path / "out")
    assert AutoTokenizer.from_pretrained(out)("w5")["input_ids"] == [5]
    names = {path.name for path in out.iterdir()}
    assert "extra.tiktoken" in names and "tokenizer_own.py" not in names
    theirs = (gpt2.large_folder / "generation_config.json").read_bytes()
    assert (out / "generation_config.json").read_bytes() == theirs


@pytest.mark.parametrize("call", ["linit", "scan", "cut"])
def test_neighbours_of_different_tokenizers_are_refused(gpt2, tmp_path, call):
    small = with_tokenizer(gpt2.small_folder, tmp_path / "small", "<|im_start|>")
    large = with_tokenizer(gpt2.large_folder, tmp_path / "large", "<think>")
    message = (
        r"small and .*large have different tokenizers: id 40 is '<\|im_start\|>' in the first, '<think>' in the second"
    )
    calls = {
        "linit": lambda: colpipe.linit(small, large, SHAPE, 0.5),
        "scan": lambda: colpipe.scan(small, large, [SHAPE], first_logit, [0.5]),
        "cut": lambda: colpipe.linit(*map(AutoModelForCausalLM.from_pretrained, (small, large)), SHAPE, method="cut"),
    }
    with pytest.raises(ColpipeError, match=message):
        calls[call]()


def test_a_tokenizer_beyond_the_cropped_vocabulary_is_refused(gpt2, tmp_path):
    padded = AutoModelForCausalLM.from_pretrained(gpt2.large_folder)
    padded.resize_token_embeddings(56)
    padded.save_pretrained(tmp_path / "wide")
    large = with_tokenizer(tmp_path / "wide", tmp_path / "large", *(f"<{letter}>" for letter in "abcdefghijklmnop"))
    message = "small: vocabulary: 50 rows of the embedding are less than the tokenizer's 56 entries .*large"
    calls = (
        lambda: colpipe.linit(gpt2.small_folder, large, SHAPE, 0.5),
        lambda: colpipe.scan(gpt2.small_folder, large, [SHAPE], first_logit, [0.5]),
    )
    for call in calls:
        with pytest.raises(ColpipeError, match=message):
            call()


def test_shapes_of_a_scan_may_be_numbers_of_parameters(gpt2):
    small, large = gpt2.small.num_parameters(), gpt2.large.num_parameters()
    wanted = f"{(small + large) / 2000:.1f}k"
    for shapes in ([wanted], wanted):
        (row,) = colpipe.scan(gpt2.small_folder, gpt2.large_folder, shapes, first_logit, [0.5])
        assert row["parameters"] == pytest.approx((small + large) / 2, rel=0.011)


def test_a_loss_that_is_no_number_is_refused(gpt2):
    with pytest.raises(
        ColpipeError, match=r"score gave nan for nested \(layers 4, hidden 12, alpha 0.5, compensate 0.0\)"
    ):
        colpipe.scan(gpt2.small, gpt2.large, [SHAPE], lambda model: float("nan"), [0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: colpipe.linit(one.small, one.large, SHAPE, alpha="outo"), "alpha 'outo': known are auto, search"),
        (
            lambda one: colpipe.linit(one.small, one.large, SHAPE, method="nestd"),
            "method 'nestd': known are paper, nested",
        ),
        (
            lambda one: colpipe.linit(one.small, one.large, SHAPE, method="fit"),
            "method 'fit': known are paper, nested, lossless, aligned, cut; colpipe.fit makes fitted cuts",
        ),
        (
            lambda one: colpipe.linit(one.small, one.large, SHAPE, "search", "fit", score=first_logit),
            "method 'fit': known are paper, nested, lossless, aligned, cut; colpipe.fit makes fitted cuts",
        ),
        (
            lambda one: colpipe.initialise("subset", one.large, SHAPE, method="fit"),
            "method 'fit': known are paper for subset; colpipe.fit makes fitted cuts",
        ),
        (
            lambda one: colpipe.linit(one.small, one.large, SHAPE, compensate=2),
            "compensate 2: must lie between 0 and 1",
        ),
        (
            lambda one: colpipe.linit(one.small, one.large, "many"),
            "shape 'many': give layers, heads and hidden, or param",
        ),
        (
            lambda one: colpipe.scan(one.small, one.large, [SHAPE], first_logit, ["search"]),
            "alpha 'search': known are auto",
        ),
        (
            lambda one: colpipe.initialise("subset", one.large, SHAPE, method="lossless"),
            "'lossless': known are paper for s",
        ),
        (lambda one: colpipe.initialise("rand", one.large, SHAPE, select="first"), "'first': known are even for rand"),
        (
            lambda one: colpipe.initialise("subset", one.large_folder, SHAPE, select="rank"),
            "large has no ranking of its layers",
        ),
        (lambda one: colpipe.initialise("subset", one.large, SHAPE, select="rotate"), "has no ranking of its layers"),
    ],
)
def test_words_that_an_option_does_not_have_are_refused(gpt2, call, message):
    with pytest.raises(ColpipeError, match=message):
        call(gpt2)


def test_a_subset_by_rank_keeps_the_best_layers_of_the_manifest(gpt2, tmp_path):
    large = copied(gpt2.large_folder, tmp_path / "large", ranking=[4, 3, 1, 2, 0])
    model = colpipe.initialise("subset", large, {**SHAPE, "layers": 3}, select="rank")
    theirs = gpt2.large.transformer.h
    for own, layer in enumerate([1, 3, 4]):
        assert torch.equal(model.transformer.h[own].ln_1.weight, theirs[layer].ln_1.weight[:12])


SHAPES = {
    "rand": (SHAPE, "large"),
    "single": (SHAPE, "small"),
    "subset": (SHAPE, "large"),
    "auto-learngene": ({"layers": 4, "heads": 4, "hidden": 16}, "large"),
    "vanilla-learngene": ({"layers": 4, "heads": 4, "hidden": 16}, "large"),
    "hypercloning": ({"layers": 3, "heads": 4, "hidden": 16}, "small"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_initialise_returns_a_stock_model_or_a_folder(gpt2, tmp_path, kind):
    shape, source = SHAPES[kind]
    model = colpipe.initialise(kind, getattr(gpt2, source), shape, seed=1)
    assert type(model) is GPT2LMHeadModel and model.config.n_layer == shape["layers"]
    out = colpipe.initialise(kind, getattr(gpt2, f"{source}_folder"), shape, seed=1, out=tmp_path / "out")
    assert distance(AutoModelForCausalLM.from_pretrained(out), model) == 0
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["parents"] == {"source": fingerprint(getattr(gpt2, f"{source}_folder"))}
    assert (manifest["seed"], manifest["parameters"]) == (1, model.num_parameters())


def test_a_manifest_names_the_kind(gpt2, tmp_path):
    out = colpipe.initialise("rand", gpt2.large_folder, SHAPE, out=tmp_path / "out")
    assert json.loads((out / MANIFEST).read_text())["kind"] == "rand"


def test_initialise_passes_its_arguments_on(gpt2):
    lossless = colpipe.initialise("single", gpt2.small, SHAPE, method="lossless")
    assert distance(lossless, gpt2.small) < 1e-4
    first, even = (colpipe.initialise("subset", gpt2.large, SHAPE, select=select) for select in ("first", "even"))
    theirs = gpt2.large.transformer.h
    assert torch.equal(first.transformer.h[2].ln_1.weight, theirs[2].ln_1.weight[:12])
    assert torch.equal(even.transformer.h[2].ln_1.weight, theirs[3].ln_1.weight[:12])
    one, other = (colpipe.initialise("rand", gpt2.large, SHAPE, seed=seed) for seed in (1, 2))
    assert distance(one, other) > 0.01


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("linit", {}, "kind 'linit': known are rand, single, subset, .*; linit takes two neighbours"),
        ("subset", {"select": "frist"}, "frist"),
        ("single", {"method": "losless"}, "losless"),
    ],
)
def test_a_misspelt_argument_is_refused(gpt2, kind, more, message):
    with pytest.raises(ColpipeError, match=message):
        colpipe.initialise(kind, gpt2.large if kind == "subset" else gpt2.small, SHAPE, **more)


def test_the_package_knows_nothing_else():
    with pytest.raises(AttributeError, match="module 'colpipe' has no attribute 'distil'"):
        colpipe.distil  # noqa: B018


def test_cut_takes_the_shape_out_of_an_elastic_member(gpt2, tmp_path):
    smallest = gpt2.sizes(2, 2, 20)
    entry = {"smallest": smallest, "layers": [0, 3], "compensate": 1.0}
    large = copied(gpt2.large_folder, tmp_path / "large", ranking=[0, 3, 1, 4, 2], elastic=entry)
    model = colpipe.linit(gpt2.small_folder, large, SHAPE, method="cut")
    block, original = (
        model.transformer.h[2],
        gpt2.large.transformer.h[3],
    )  # layers 0, 1, 3, 4: kept ones and the best others
    torch.testing.assert_close(block.ln_1.weight, original.ln_1.weight[:12] * 16 / 12)
    assert torch.equal(block.mlp.c_fc.weight, original.mlp.c_fc.weight[:12, :30])
    folder = colpipe.linit(gpt2.small_folder, large, SHAPE, method="cut", out=tmp_path / "out")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert (manifest["method"], manifest["layer_map"], set(manifest["sources"])) == ("cut", [0, 1, 3, 4], {"larger"})
    rows = colpipe.scan(gpt2.small_folder, large, [SHAPE], first_logit, alphas=[0.5], methods=["nested", "cut"])
    assert {row["method"]: row["alpha"] for row in rows} == {"nested": 0.5, "cut": None}
    with pytest.raises(ColpipeError, match="large: is no elastic member, nothing can be cut out of it"):
        colpipe.linit(gpt2.small_folder, gpt2.large_folder, SHAPE, method="cut")
    with pytest.raises(ColpipeError, match="its smallest trained shape has layer 2, the target 1"):
        colpipe.linit(gpt2.small_folder, large, {"layers": 1, "heads": 2, "hidden": 8, "ffn": 20}, method="cut")


FIT_IDS = torch.randint(0, 50, (400,), generator=torch.Generator().manual_seed(1))
NARROW = {"layers": 3, "heads": 6, "kv_heads": 3, "hidden": 12, "ffn": 30}


def fitted_by_hand(model, select: str, target: dict):
    """Measured and run in float32, whatever the model is stored in."""
    batches = [*FIT_IDS[:384].view(-1, 16).split(8), FIT_IDS[None, 384:]]
    order = reorder(Weights(model), measure(copy.deepcopy(model).float(), batches), select)
    source = order.load()
    gain = signal_gain(order.details["energy"], 16, target["hidden"])
    start = take_subset(Weights(source), target, select, order.details["ranking"], gain=gain)
    return fitted(copy.deepcopy(source).float(), start, batches).load()


@pytest.mark.parametrize(
    ("family", "tied", "hidden", "select"),
    [
        ("llama", False, 12, "rotate"),
        ("llama", False, 16, "rank"),  # nothing to rotate for
        ("llama", True, 12, "rank"),  # a rotation would untie the head
        ("gpt2", True, 12, "rank"),
        ("gpt_neox", False, 12, "rank"),
    ],
)
def test_fit_ranks_or_rotates_what_it_cuts(neighbours_of, caplog, family, tied, hidden, select):
    neighbours = neighbours_of(family, tied)
    shape = {**NARROW, "heads": 8, "kv_heads": 4, "hidden": 16} if hidden == 16 else dict(NARROW)
    if family not in ("llama",):
        shape = {"layers": 3, "heads": 3, "hidden": 12, "ffn": 30}
    model = colpipe.fit(neighbours.large_folder, shape, FIT_IDS)
    weights = Weights(neighbours.large)
    axes = {
        "layer": 3,
        "hidden": hidden,
        "head": shape["heads"],
        "group": shape.get("kv_heads", shape["heads"]),
        "ffn": 30,
    }
    assert distance(model, fitted_by_hand(neighbours.large, select, {**weights.sizes, **axes})) < 1e-4
    assert "400 tokens, 16,384 were asked for: all are used" in caplog.text
    assert weights.tied == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)


def test_fit_ranks_on_so_many_tokens_only(gpt2, monkeypatch):
    """Batches evenly spread over the text; what is fitted sees all of them."""
    ranked = []
    monkeypatch.setattr(api, "ORDER_TOKENS", 200)
    monkeypatch.setattr(api, "measure", lambda *given, **more: ranked.append(given[1]) or measure(*given, **more))
    colpipe.fit(gpt2.large, {"layers": 3, "heads": 3, "hidden": 12, "ffn": 30}, FIT_IDS, select="rank")
    batches = [*FIT_IDS[:384].view(-1, 16).split(8), FIT_IDS[None, 384:]]
    [used] = ranked
    assert len(batches) == 4 and len(used) == 2
    assert all(torch.equal(mine, other) for mine, other in zip(used, batches[::2], strict=True))


def test_fit_and_scan_take_a_precision_for_all_that_they_run(gpt2, monkeypatch):
    exact, rounded = (
        colpipe.fit(gpt2.large, {"layers": 3, "heads": 3, "hidden": 12, "ffn": 30}, FIT_IDS, precision=each)
        for each in ("float32", "bfloat16")
    )
    assert 0 < distance(rounded, exact) < 0.5
    used = []
    for name in ("measure", "gather"):
        given = getattr(api, name)
        monkeypatch.setattr(
            api, name, lambda *a, given=given, **more: used.append(more["precision"]) or given(*a, **more)
        )
    colpipe.fit(gpt2.large, {"layers": 3, "heads": 3, "hidden": 12}, FIT_IDS, "rank", precision="bfloat16")
    shape = {"layers": 3, "heads": 3, "hidden": 12}
    options = {"methods": ["fit"], "text": FIT_IDS, "precision": "bfloat16"}
    colpipe.scan(gpt2.small, gpt2.large, [shape], lambda model: 1.0, **options)
    assert used == ["bfloat16"] * 3


@pytest.mark.parametrize("precision", ["float16", torch.bfloat16, None])
def test_a_precision_that_there_is_not_is_refused(gpt2, precision):
    with pytest.raises(ColpipeError, match=r"precision .*: known are float32, bfloat16"):
        colpipe.fit(gpt2.large, {"layers": 3, "heads": 3, "hidden": 12}, FIT_IDS, precision=precision)


@pytest.mark.parametrize("select", ["rank", "rotate"])
def test_fit_of_a_model_in_half_precision_runs_a_float32_copy(neighbours_of, tmp_path, select):
    half = copy.deepcopy(neighbours_of("llama", False).large).bfloat16()
    half.save_pretrained(tmp_path / "half")
    sizes = {**Weights(half).sizes, "layer": 3, "hidden": 12, "head": 6, "group": 3, "ffn": 30}
    expected = fitted_by_hand(half, select, sizes)
    made = colpipe.fit(half, NARROW, FIT_IDS, select=select)
    assert_same(made.state_dict(), expected.state_dict())
    read = colpipe.fit(tmp_path / "half", NARROW, FIT_IDS, select=select).state_dict()
    for name, value in expected.state_dict().items():  # a file's memory is aligned otherwise: the last bit may differ
        torch.testing.assert_close(read[name], value, rtol=0.01, atol=0.005)
    assert {value.dtype for value in (*half.parameters(), *made.parameters())} == {torch.bfloat16}


def test_a_scan_fits_a_model_in_half_precision_from_a_float32_copy(gpt2):
    half, scored = copy.deepcopy(gpt2.large).bfloat16(), []

    def score(model) -> float:
        scored.append(model)
        return 1.0

    colpipe.scan(gpt2.small, half, [SHAPE], score, methods=["fit"], text=FIT_IDS)
    batches = [*FIT_IDS[:384].view(-1, 16).split(8), FIT_IDS[None, 384:]]
    start = take_subset(Weights(half), gpt2.sizes(4, 3, 30), "even")
    expected = fitted(copy.deepcopy(half).float(), start, batches).load()
    assert_same(scored[-1].state_dict(), expected.state_dict())


def test_fit_writes_folders_of_several_shapes_and_a_file_is_a_text(neighbours_of, tmp_path):
    large = with_tokenizer(neighbours_of("llama", False).large_folder, tmp_path / "large")
    (tmp_path / "words.txt").write_text(" ".join(f"w{number % 37 + 3}" for number in range(0, 1500, 7)))
    shapes = [NARROW, {**NARROW, "layers": 4}]
    folders = colpipe.fit(large, shapes, str(tmp_path / "words.txt"), tokens=160, out=tmp_path / "out")
    assert folders == [tmp_path / "out/0", tmp_path / "out/1"]
    for folder, shape in zip(folders, shapes, strict=True):
        manifest = json.loads((folder / MANIFEST).read_text())
        assert (manifest["kind"], manifest["method"], manifest["select"]) == ("fit", "fit", "rotate")
        assert (manifest["tokens"], manifest["parents"]) == (160, {"source": fingerprint(large)})
        alone = colpipe.fit(large, shape, tmp_path / "words.txt", tokens=160)
        assert distance(AutoModelForCausalLM.from_pretrained(folder), alone) < 1e-5
        assert AutoTokenizer.from_pretrained(folder)("w5")["input_ids"] == [5]


def test_fit_says_what_a_rotation_of_a_tied_model_costs(neighbours_of, caplog):
    model = colpipe.fit(neighbours_of("qwen3", True).large, NARROW, FIT_IDS, select="rotate", tokens=100)
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    assert "rotated, its head is no longer the embedding" in caplog.text


@pytest.mark.parametrize("select", ["first", "even"])
def test_fit_of_leading_indices_needs_no_ranking(gpt2, select):
    model = colpipe.fit(gpt2.large, {**SHAPE, "layers": 3}, FIT_IDS, select=select)
    start = take_subset(Weights(gpt2.large), gpt2.sizes(3, 3, 30), select)
    batches = [*FIT_IDS[:384].view(-1, 16).split(8), FIT_IDS[None, 384:]]
    assert distance(model, fitted(gpt2.large, start, batches).load()) == 0


@pytest.mark.parametrize(
    ("shape", "text", "more", "message"),
    [
        ({**SHAPE, "layers": 6}, FIT_IDS, {}, "large: layer is 5, the target's 6 is more than that"),
        (SHAPE, FIT_IDS, {"select": "best"}, "select 'best': known are"),
        (SHAPE, FIT_IDS, {"select": "rotate"}, "select 'rotate': gpt2 has LayerNorm"),
        (SHAPE, FIT_IDS, {"tokens": 0}, "tokens 0: must be 1 or more"),
        (SHAPE, FIT_IDS + 1, {}, "token id 50 is outside its vocabulary of 50"),
        (SHAPE, FIT_IDS[:0], {}, "no tokens"),
        (SHAPE, "words", {}, "the model has no tokenizer beside it"),
        (SHAPE, "", {}, "text: is empty"),
        (SHAPE, [], {}, "text: is empty"),
        (SHAPE, ["words", 3], {}, "text: 3 is no text"),
        (SHAPE, "nowhere.txt", {}, "nowhere.txt: cannot be read as a text file: .*No such file"),
        (SHAPE, FIT_IDS, {"ridge": -1}, "ridge -1: must be 0 or more"),
    ],
)
def test_what_cannot_be_fitted_is_refused(gpt2, tmp_path, shape, text, more, message):
    with pytest.raises(ColpipeError, match=message):
        colpipe.fit(gpt2.large_folder, shape, text, out=tmp_path / "out", **more)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: colpipe.fit(folder, "9M", "some text"),
        lambda folder: colpipe.linit(folder, folder, "9M"),
        lambda folder: colpipe.initialise("subset", folder, "9M"),
        lambda folder: colpipe.scan(folder, folder, ["9M"], first_logit),
    ],
)
def test_a_folder_without_a_model_is_named_in_one_line(tmp_path, make):
    for folder in (tmp_path / "missing", str(tmp_path)):
        with pytest.raises(ColpipeError) as refusal:
            make(folder)
        assert str(folder) in str(refusal.value) and "config.json" in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_folder_of_another_kind_of_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "what"}')
    with pytest.raises(ColpipeError, match=rf"^{tmp_path}: cannot be loaded as a causal language model: .*what"):
        colpipe.fit(tmp_path, "9M", "some text")
