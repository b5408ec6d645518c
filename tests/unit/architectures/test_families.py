"""The axis tables against what transformers makes, stores and counts."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from colpipe.architectures.families import FAMILIES, GPT2, TABLES, family_of
from colpipe.config.parts import Architecture, Shape
from colpipe.errors import ColpipeError
from colpipe.learngene.weights import Weights
from tests.conftest import make_model
from tests.unit.learngene.tiny import GROUPED, NEWER

ATTENTION = {
    "gpt2": "h.0.attn.",  # as published: without `transformer.`
    "gpt_neox": "gpt_neox.layers.0.attention.",
    **{family: "model.layers.0.self_attn." for family in (*GROUPED, *NEWER)},
}
BUFFERS = {
    "gpt2": ["bias", "masked_bias"],
    "gpt_neox": ["bias", "masked_bias", "rotary_emb.inv_freq"],
    **{family: ["rotary_emb.inv_freq"] for family in (*GROUPED, *NEWER)},
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def stored(request, family, tmp_path_factory):
    """(a model, its folder); 3 layers, and heads that are not as wide together as the residual stream."""
    folder = tmp_path_factory.mktemp(family)
    shape = Shape(layers=3, heads=2, hidden=8, ffn=20)
    if family in (*GROUPED, *NEWER):
        own = {"head_dim": 6} if "head_dim" in FAMILIES[family].keys else {}
        shape = Shape(layers=3, heads=4, kv_heads=2, hidden=8, ffn=20, **own)
    architecture = Architecture(family=family, vocabulary=50, positions=16, tied=request.param)
    return make_model(folder, architecture, shape, seed=0), folder


def shape_of(axes: str, sizes: dict) -> tuple[int, ...]:
    """Shape of a tensor from its axes: those in brackets are multiplied."""
    groups = re.findall(r"\([^)]*\)|\w+", axes)
    return tuple(math.prod(sizes[axis] for axis in re.findall(r"\w+", group)) for group in groups)


def read_config(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


def rewrite(source, folder, change) -> None:
    """A copy of a model folder whose tensors went through a function."""
    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text())
    save_file(change(load_file(source / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def test_the_table_names_every_stored_tensor_with_its_shape(family, stored):
    model, folder = stored
    table, config = FAMILIES[family], read_config(folder)
    sizes, tied = table.sizes(config), table.is_tied(config)
    shapes = {name: shape_of(tensor.axes, sizes) for name, tensor in table.table(tied)}
    for name, parts in table.fused.items():  # one below the other
        rows = [shapes.pop(part) for part in parts]
        shapes[name] = (sum(first for first, *_ in rows), *rows[0][1:])
    expected = {name.format(layer=layer): shape for name, shape in shapes.items() for layer in range(sizes["layer"])}
    tensors = load_file(folder / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    assert table.parameters(sizes, tied) == model.num_parameters() == sum(map(torch.numel, tensors.values()))


def test_a_norm_stands_before_everything_that_reads(family):
    tensors = FAMILIES[family].tensors
    for tensor in tensors.values():
        before = tensor.role == "head" or (tensor.role == "read" and family != "olmo2")
        assert before == bool(tensor.after)
        assert not tensor.after or tensors[tensor.after].role == "gain"
        behind = tensor.role == "write" and family in ("olmo2", "gemma3_text")
        assert behind == bool(tensor.into)
        assert not tensor.into or tensors[tensor.into].role == "gain"


def test_every_norm_inside_the_attention_is_known_by_what_it_reads():
    for family in TABLES.values():
        norms = {name for name, tensor in family.tensors.items() if tensor.role == "inside" and "norm" in name}
        made = {name.rpartition(".")[0] for name in family.normed_inside}
        assert {name.replace("_norm.weight", "_proj") for name in norms} == made
        assert all(f"{name}.weight" in family.normed_inside for name in made)
        assert all(name in family.normed_inside for name in family.tensors if name.rpartition(".")[0] in made)
    assert sum(bool(family.normed_inside) for family in TABLES.values()) == 3


def test_sizes_survive_a_change_of_the_configuration(family, stored):
    config, table = read_config(stored[1]), FAMILIES[family]
    sizes = table.sizes(config)
    assert sizes["layer"] == 3 and sizes["hidden"] == 8 and sizes["ffn"] == 20
    assert sizes["query"] == (2 if family in (*GROUPED, *NEWER) else 1)
    other = {**sizes, "layer": 2, "hidden": 24, "ffn": 36, "vocabulary": 40, "position": 9}
    other |= {"head": 6, "group": 3} if family in (*GROUPED, *NEWER) else {"head": 6, "group": 6}
    other["head_dim"] = sizes["head_dim"] if "head_dim" in table.keys else 4
    resized = table.resize(config, other, tied=False)
    assert table.sizes(resized) == other
    assert not table.is_tied(resized)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**resized))
    assert model.num_parameters() == table.parameters(other, tied=False)


def test_a_config_that_leaves_things_out_means_what_transformers_means():
    published = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_ctx": 1024}
    published |= {"n_layer": 12, "n_head": 12, "n_embd": 768}
    sizes = GPT2.sizes(published)
    assert (sizes["ffn"], sizes["head_dim"], GPT2.is_tied(published)) == (3072, 64, True)
    assert GPT2.parameters(sizes, True) == 124_439_808
    assert not FAMILIES["llama"].is_tied({"model_type": "llama"})


def test_defaults_are_those_of_the_classes(family):
    config = AutoConfig.for_model(family)
    table = FAMILIES[family]
    assert {key: getattr(config, key) for key in table.usual} == dict(table.usual)
    assert table.sizes({}) == table.sizes(config.to_dict())
    for old, new in table.aliases.items():
        assert table.get({old: 3}, new) == getattr(AutoConfig.for_model(family, **{old: 3}), new) == 3


@pytest.mark.parametrize("old", [False, True], ids=["now", "older"])
def test_stored_names_of_older_checkpoints_are_understood(family, stored, tmp_path, old):
    _, folder = stored

    def age(tensors: dict) -> dict:
        if family == "gpt2":
            tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        return tensors | {ATTENTION[family] + name: torch.ones(1, 1, 16, 16) for name in BUFFERS[family]}

    rewrite(folder, tmp_path / "model", age if old else lambda tensors: tensors)
    weights = Weights(tmp_path / "model")
    for name, tensor in load_file(folder / "model.safetensors").items():
        parts = FAMILIES[family].fused.get(re.sub(r"\.\d\.", ".{layer}.", name), [name])
        layer = (re.findall(r"\.(\d)\.", name) or [0])[0]
        assert torch.equal(torch.cat([weights.read(part.format(layer=layer)) for part in parts]), tensor)


def test_a_tensor_too_many_or_too_few_is_named(family, stored, tmp_path):
    _, folder = stored
    extra = ATTENTION[family] + "lora_A.weight"
    rewrite(folder, tmp_path / "more", lambda tensors: tensors | {extra: torch.ones(2)})
    with pytest.raises(ColpipeError, match=rf"more: .* {family} with 3 layers: missing none, unknown \['{extra}'\]"):
        Weights(tmp_path / "more")
    gone = sorted(load_file(folder / "model.safetensors"))[-1]
    rewrite(folder, tmp_path / "less", lambda tensors: {name: tensors[name] for name in tensors if name != gone})
    with pytest.raises(ColpipeError, match=rf"less: .*missing \['{gone}'\], unknown none"):
        Weights(tmp_path / "less")


def test_a_config_that_says_other_layers_is_refused(family, stored, tmp_path):
    rewrite(stored[1], tmp_path / "model", lambda tensors: tensors)
    table, config = FAMILIES[family], read_config(stored[1])
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, table.keys["layer"]: 2}))
    with pytest.raises(
        ColpipeError, match=r"with 2 layers: missing none, unknown \['.*\.2\..*|layers` \(2\) must be equal"
    ):
        Weights(tmp_path / "model")


def test_a_head_is_asked_for_only_where_it_is_not_the_embedding(family, stored, tmp_path):
    _, folder = stored
    head = list(FAMILIES[family].tensors)[-1]
    if FAMILIES[family].is_tied(read_config(folder)):  # a copy of the embedding that some files hold
        rewrite(folder, tmp_path / "model", lambda tensors: tensors | {head: torch.zeros(50, 8)})
        Weights(tmp_path / "model")
    else:
        rewrite(folder, tmp_path / "model", lambda tensors: {name: tensors[name] for name in tensors if name != head})
        with pytest.raises(ColpipeError, match=rf"missing \['{head}'\]"):
            Weights(tmp_path / "model")


def test_an_unknown_family_is_named():
    with pytest.raises(ColpipeError, match=r"x/config.json: model_type 'bert' has no axis table; known are gpt2"):
        family_of({"model_type": "bert"}, "x/config.json")


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("gpt2", {"group": 1}, "kv_heads is 1 of 2 heads, but gpt2 has no grouped queries"),
        ("gpt_neox", {"head_dim": 8}, "gpt_neox has no head_dim of its own: hidden must be heads × head_dim"),
        ("llama", {"head": 3}, "heads 3 is not a multiple of kv_heads 2"),
        ("llama", {"head": 6}, "hidden 8 is not a multiple of heads 6, which llama wants"),
        ("qwen2", {"head": 6}, None),
        ("qwen3", {"head_dim": 5}, None),
    ],
)
def test_shapes_that_transformers_has_no_model_for(family, change, message):
    sizes = {"hidden": 8, "head": 2, "group": 2, "head_dim": 4}
    assert FAMILIES[family].shape_problem({**sizes, **change}) == message


GPT2_COUNTS = {  # layers, heads, hidden → parameters, with 50,257 tokens and 1,024 positions
    (14, 12, 768): 138_615_552,
    (18, 14, 896): 219_567_488,
    (24, 14, 896): 277_440_128,
    (26, 16, 1024): 380_015_616,
    (30, 18, 1152): 537_284_736,
    (8, 8, 512): 51_475_968,
    (3, 25, 1600): 174_275_200,  # Auto-LearnGene at the width of GPT-2 XL
    (5, 25, 1600): 235_756_800,
    (7, 25, 1600): 297_238_400,
}


@pytest.mark.parametrize(("numbers", "expected"), GPT2_COUNTS.items(), ids=str)
def test_parameters_of_the_papers_gpt2_shapes(numbers, expected):
    layers, heads, hidden = numbers
    counted = Architecture().parameters(Shape(layers=layers, heads=heads, hidden=hidden))
    block = 12 * hidden**2 + 13 * hidden  # 4 + 8 matrices; biases 3 + 1 + 4 + 1, norms 4
    assert counted == expected == (50257 + 1024) * hidden + layers * block + 2 * hidden


PYTHIA = Architecture(family="gpt_neox", vocabulary=50304, positions=2048)
QWEN3 = Architecture(family="qwen3", vocabulary=151936, positions=40960, tied=True)


@pytest.mark.parametrize(
    ("architecture", "shape", "expected"),
    [
        (Architecture(), Shape(layers=14, heads=12, hidden=768), 138_615_552),
        (PYTHIA, Shape(layers=10, heads=10, hidden=640), 113_625_600),
        (QWEN3, Shape(layers=28, heads=16, kv_heads=8, head_dim=128, hidden=1536, ffn=4608), 1_092_252_160),
    ],
    ids=["gpt2", "pythia", "qwen3"],
)
def test_parameters_of_models_that_transformers_builds(architecture, shape, expected):
    config = architecture.configure(shape, end_of_text=0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    assert architecture.parameters(shape) == expected == model.num_parameters()
