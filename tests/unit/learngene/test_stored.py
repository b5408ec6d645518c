"""A model folder is read as transformers reads it, or refused in one line that names the file and the tensor."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

from colpipe.errors import ColpipeError
from colpipe.learngene.initialisers import make
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.weights import Weights
from tests.unit.learngene.tiny import distance

NORM = {"gpt2": "transformer.h.1.ln_1.weight", "llama": "model.layers.1.input_layernorm.weight"}


@pytest.fixture
def folder(gpt2, tmp_path):
    """A copy of the smaller GPT-2."""
    return shutil.copytree(gpt2.small_folder, tmp_path / "model")


def change(folder, name="model.safetensors", **tensors) -> None:
    """Replace tensors of a file, by names with _ for every dot but that of the suffix."""
    stored = load_file(folder / name)
    save_file({**stored, **tensors}, folder / name, {"format": "pt"})


def as_whole(source):
    weights = Weights(source)
    return take_subset(weights, weights.sizes).load()


def test_one_file_is_read_before_an_index_and_shards_beside_it(gpt2, folder):
    gpt2.large.save_pretrained(folder / "shards", max_shard_size="2KB")
    for path in (folder / "shards").glob("model*"):
        shutil.copy(path, folder)
    assert distance(as_whole(folder), gpt2.small) < 1e-6
    for path in folder.glob("model-*"):
        path.unlink()
    assert distance(as_whole(folder), gpt2.small) < 1e-6


def test_an_index_that_names_a_missing_file_or_is_damaged_is_refused(gpt2, tmp_path):
    gpt2.small.save_pretrained(tmp_path, max_shard_size="2KB")
    index = tmp_path / "model.safetensors.index.json"
    gone = sorted(json.loads(index.read_text())["weight_map"].values())[0]
    (tmp_path / gone).unlink()
    with pytest.raises(ColpipeError, match=rf"{gone}: .*{index.name} names the file, and it is not there"):
        Weights(tmp_path)
    for text in ('{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": ["b"]}}', "[" * 100_000):
        index.write_text(text)
        with pytest.raises(ColpipeError, match=rf"{index.name}: cannot be read"):
            Weights(tmp_path)


@pytest.mark.parametrize("same", [True, False])
def test_a_tensor_in_two_shards_is_read_where_both_are_the_same(gpt2, tmp_path, same):
    gpt2.small.save_pretrained(tmp_path, max_shard_size="2KB")
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    name, first = next((name, file) for name, file in weight_map.items() if name == NORM["gpt2"])
    value = load_file(tmp_path / first)[name]
    other = next(file for file in sorted(weight_map.values()) if file != first)
    change(tmp_path, other, **{name: value if same else value + 1})
    if same:
        assert distance(as_whole(tmp_path), gpt2.small) < 1e-6
        return
    with pytest.raises(ColpipeError, match=rf"model-.*: tensor {name} is in model-.* too, with other values"):
        Weights(tmp_path)


@pytest.mark.parametrize(("dtype", "kind"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.uint8, "U8")])
def test_a_dtype_that_is_not_read_is_named(folder, dtype, kind):
    change(folder, **{NORM["gpt2"]: torch.ones(8).to(dtype)})
    with pytest.raises(ColpipeError, match=rf"model.safetensors: tensor {NORM['gpt2']} is {kind}; read are F32, BF16"):
        Weights(folder)


def test_buffers_of_other_dtypes_are_no_weights(gpt2, folder):
    change(folder, **{"transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16, dtype=torch.bool)})
    assert distance(as_whole(folder), gpt2.small) < 1e-6


def test_the_dtype_holds_every_tensor(folder):
    change(folder, **{NORM["gpt2"]: torch.full((8,), 1 + 1e-6, dtype=torch.float32)})
    tensors = {name: value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors | {NORM["gpt2"]: torch.full((8,), 1 + 1e-6)}, folder / "model.safetensors", {"format": "pt"})
    assert Weights(folder).dtype == torch.float32


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_saved_without_its_head_is_read_if_it_is_tied(neighbours_of, tmp_path, family, tied):
    neighbours = neighbours_of(family, tied)
    AutoModel.from_pretrained(neighbours.small_folder).save_pretrained(tmp_path)
    if tied:
        assert distance(as_whole(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path).eval()) < 1e-6
        assert as_whole(tmp_path).config.architectures == [type(neighbours.small).__name__]
        return
    with pytest.raises(ColpipeError, match=r"missing \['(lm_head|embed_out).weight'\], unknown none"):
        Weights(tmp_path)


def test_a_tied_model_stored_under_the_name_of_its_head_is_read(gpt2, folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert distance(AutoModelForCausalLM.from_pretrained(folder).eval(), gpt2.small) < 1e-6
    assert distance(as_whole(folder), gpt2.small) < 1e-6


def test_a_tensor_under_two_names_is_refused(folder):
    change(folder, **{"h.1.ln_1.weight": torch.ones(8)})
    with pytest.raises(ColpipeError, match=r"h.1.ln_1.weight are both stored|h.1.ln_1.weight .* both"):
        Weights(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("written", [True, False])
def test_a_source_that_is_not_finite_is_named(gpt2, folder, tmp_path, value, written):
    gain = torch.ones(8)
    gain[3] = value
    change(folder, **{NORM["gpt2"]: gain})
    assembly = linit(Weights(folder), gpt2.weights[1], gpt2.sizes(), 0.5)
    with pytest.raises(ColpipeError, match=rf"model.safetensors: tensor {NORM['gpt2']} holds NaN or infinite values"):
        assembly.write(tmp_path / "out") if written else assembly.load()


def test_a_value_that_the_dtype_cannot_hold_is_named(gpt2, folder, tmp_path):
    change(folder, **{NORM["gpt2"]: torch.full((8,), 1e6)})
    large = tmp_path / "large"
    AutoModelForCausalLM.from_pretrained(gpt2.large_folder, dtype=torch.float16).save_pretrained(large)
    with pytest.raises(
        ColpipeError, match=r"tensor transformer.h.1.ln_1.weight would hold 1e\+06, float16 goes to 6.55e\+04"
    ):
        linit(Weights(folder), Weights(large), gpt2.sizes(2, 2, 20), 1.0).write(tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantization_config: the weights are quantised \(gptq\)"),
        (
            {"activation_function": "nope"},
            r"config.json: activation_function 'nope' is none that transformers has: .*gelu",
        ),
        ({"model_type": "own"}, r"config.json: model_type 'own' has no axis table"),
        ({"model_type": None}, r"config.json: model_type None has no axis table"),
        ({"model_type": ["gpt2"]}, r"config.json: model_type \['gpt2'\] has no axis table"),
        ({"n_head": 0}, r"config.json: n_head is 0; it has to be a whole number of 1 or more"),
        ({"n_layer": -1}, r"config.json: n_layer is -1; it has to be a whole number of 1 or more"),
        ({"n_head": 3}, r"config.json: gpt2 has no head_dim of its own: hidden must be heads × head_dim"),
        ({"activation_function": ["gelu"]}, r"config.json: .*activation_function"),
        ({"n_layer": "two"}, r"config.json: transformers has no such model: .*n_layer"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_a_line(folder, config, message):
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    with pytest.raises(ColpipeError, match=message) as caught:
        Weights(folder)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_no_mapping_is_refused(folder):
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ColpipeError, match=r"config.json: cannot be read: holds a list, not a mapping"):
        Weights(folder)


def test_a_model_without_its_weights_in_memory_is_refused(gpt2):
    with torch.device("meta"):
        empty = type(gpt2.small)(gpt2.small.config)
    weights = Weights(empty)
    with pytest.raises(ColpipeError, match=r"transformer.wte.weight is on the meta device: the model is offloaded"):
        make("subset", weights, weights.sizes).load()


def test_positions_stay_where_rotations_go_by_their_number(llama, tmp_path):
    folder = shutil.copytree(llama.small_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    (folder / "config.json").write_text(json.dumps(config))
    assert distance(as_whole(folder), AutoModelForCausalLM.from_pretrained(folder).eval()) < 1e-6
    weights = Weights(folder)
    with pytest.raises(
        ColpipeError, match=r"position is 16, the target's is 8; rope_type dynamic turns by that number"
    ):
        take_subset(weights, {**weights.sizes, "position": 8})
