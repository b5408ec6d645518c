"""Models as tensors by name: every form of source, and what is written."""

import copy
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from colpipe.errors import ColpipeError
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.selection import Selection
from colpipe.learngene.weights import Weights, copy_companions, write_model
from tests.unit.learngene.tiny import assert_same, logits

NORM = "transformer.h.3.ln_1.weight"


def in_shards(model, folder, dtype=torch.float32):
    """The model again, in files of a few tensors each."""
    copy.deepcopy(model).to(dtype).save_pretrained(folder, max_shard_size="2KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def test_what_is_written_is_a_stock_model(neighbours, tmp_path):
    assembly = linit(*neighbours.weights, neighbours.sizes(), 0.4, "nested")
    assembly.write(tmp_path / "desnet")
    with safe_open(tmp_path / "desnet" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == assembly.shapes()  # noqa: SIM118
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "desnet", output_loading_info=True)
    assert not any(report.values()), report
    assert model.num_parameters() == assembly.parameters
    assert torch.equal(logits(model), logits(assembly.load()))


def test_tied_stays_tied_after_saving_and_loading(neighbours, tmp_path):
    model = linit(*neighbours.weights, neighbours.sizes(), 0.4, "paper").load()
    model.save_pretrained(tmp_path)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    for one in (model, again):
        shared = one.get_output_embeddings().weight is one.get_input_embeddings().weight
        assert shared == neighbours.architecture.is_tied
    assert torch.equal(logits(model), logits(again))


def test_same_inputs_same_bytes(neighbours, tmp_path):
    for name in ("one", "other"):
        linit(*neighbours.weights, neighbours.sizes(), 0.4, "aligned").write(tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_loaded_models_are_as_good_as_folders(neighbours):
    small, large = neighbours.weights
    expected = linit(small, large, neighbours.sizes(), 0.4, "aligned")
    for sources in ((Weights(neighbours.small), Weights(neighbours.large)), (small, Weights(neighbours.large))):
        assembly = linit(*sources, neighbours.sizes(), 0.4, "aligned")
        assert_same(dict(assembly.tensors()), dict(expected.tensors()))
    assert torch.equal(logits(assembly.load()), logits(expected.load()))


def test_a_sharded_source_gives_the_same(neighbours, tmp_path):
    folder = in_shards(neighbours.large, tmp_path)
    one, whole = (take_subset(source, neighbours.sizes()) for source in (Weights(folder), neighbours.weights[1]))
    assert_same(dict(one.tensors()), dict(whole.tensors()))


@pytest.mark.parametrize("both", [False, True])
def test_bfloat16_sources_are_mixed_in_float32(gpt2, tmp_path, both):
    large = Weights(in_shards(gpt2.large, tmp_path / "large", torch.bfloat16))
    small = gpt2.weights[0]
    if both:
        small = Weights(in_shards(gpt2.small, tmp_path / "small", torch.bfloat16))
    assembly = linit(small, large, gpt2.sizes(2, 2, 20), 0.3)
    assert {value.dtype for _, value in assembly.tensors()} == {torch.bfloat16}
    assembly.write(tmp_path / "desnet")
    tensors = load_file(tmp_path / "desnet" / "model.safetensors")
    for name, value in tensors.items():
        assert value.dtype == torch.bfloat16, name
        theirs = large.read(name)[tuple(map(slice, value.shape))].float()
        if "c_attn" not in name:  # whose leading part is not a corner of what is stored
            mixed = torch.lerp(theirs, small.read(name).float(), 0.3).bfloat16()
            assert torch.equal(value, mixed), name
    assert json.loads((tmp_path / "desnet" / "config.json").read_text())["dtype"] == "bfloat16"
    assert assembly.load().dtype == AutoModelForCausalLM.from_pretrained(tmp_path / "desnet").dtype == torch.bfloat16


def test_take_opens_the_axes_and_gathers(llama):
    large = llama.weights[1]
    name = "model.layers.{layer}.self_attn.q_proj.weight"
    taken = large.take(name, 0, Selection([3, None], {"group": [2, 0], "hidden": [5]}))
    stored = large.read(name.format(layer=3))
    assert taken.shape == (2, 2, 4, 1)  # group, query, head_dim, hidden
    assert taken[0, 1, 3, 0] == stored[2 * 8 + 1 * 4 + 3, 5]
    with pytest.raises(ColpipeError, match="nothing is selected for layer 1 of the target"):
        large.take(name, 1, Selection([3, None], {}))


def test_a_tied_source_has_its_embedding_for_a_head(gpt2):
    small = gpt2.weights[0]
    everything = Selection([0, 1], {})
    assert torch.equal(small.take("lm_head.weight", None, everything), small.read("transformer.wte.weight"))


@pytest.mark.parametrize("cut", [100, 100_000])
def test_a_file_cut_short_is_named(gpt2, tmp_path, cut):
    shutil.copytree(gpt2.large_folder, tmp_path / "large")
    path = tmp_path / "large" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ColpipeError, match=r"large/model.safetensors: weights cannot be read"):
        Weights(tmp_path / "large")


def test_a_shard_cut_short_or_gone_is_named(gpt2, tmp_path):
    in_shards(gpt2.large, tmp_path)
    shard = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"][NORM]
    weights, path = Weights(tmp_path), tmp_path / shard
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(ColpipeError, match=rf"{shard}: weights cannot be read"):
        Weights(tmp_path)
    path.unlink()
    with pytest.raises(ColpipeError, match=rf"{shard}: weights cannot be read"):
        Weights(tmp_path)
    with pytest.raises(ColpipeError, match=rf"{shard}: tensor {NORM} cannot be read"):
        weights.read(NORM)


def test_a_tensor_that_is_not_as_the_config_says_is_named(gpt2, tmp_path):
    shutil.copytree(gpt2.large_folder, tmp_path / "large")
    tensors = load_file(tmp_path / "large" / "model.safetensors")
    save_file(tensors | {NORM: torch.ones(17)}, tmp_path / "large" / "model.safetensors")
    with pytest.raises(ColpipeError, match=rf"large: {NORM}: a tensor of shape \(17,\) is not 'hidden' with .* 16"):
        take_subset(Weights(tmp_path / "large"), gpt2.sizes()).load()


def test_a_folder_without_configuration_or_weights_is_refused(gpt2, tmp_path):
    with pytest.raises(ColpipeError, match=r"config.json: cannot be read"):
        Weights(tmp_path)
    shutil.copy(gpt2.large_folder / "config.json", tmp_path)
    with pytest.raises(ColpipeError, match=r"model.safetensors: weights cannot be read"):
        Weights(tmp_path)


def test_a_tensor_out_of_turn_or_a_full_disk_is_not_written(tmp_path, monkeypatch):
    shapes = {"a": (2,), "b": (3,)}
    with pytest.raises(ColpipeError, match=r"a of shape \(2,\) was to come, not b \(3,\)"):
        write_model(shapes, [("b", torch.ones(3)), ("a", torch.ones(2))], {}, torch.float32, tmp_path)
    free = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(ColpipeError, match="no space left for a model"):
        write_model(shapes, [], {}, torch.float32, tmp_path / "full")


def test_companions_are_copied_and_nothing_else(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "folder"
    for path in (source, folder):
        path.mkdir()
    companions = {"tokenizer.json", "tokenizer_config.json", "merges.txt", "generation_config.json"}
    for name in (*companions, "config.json", "model.safetensors", "manifest.json"):
        (source / name).write_text("{}")
    copy_companions(source, folder)
    assert {path.name for path in folder.iterdir()} == companions


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_models_on_a_gpu_are_sources_too(gpt2, tmp_path):
    large = AutoModelForCausalLM.from_pretrained(gpt2.large_folder).cuda()
    expected = dict(linit(*gpt2.weights, gpt2.sizes(), 0.4, "aligned").tensors())
    assembly = linit(gpt2.weights[0], Weights(large), gpt2.sizes(), 0.4, "aligned")
    for name, value in assembly.tensors():
        torch.testing.assert_close(value.cpu(), expected[name])
    assembly.write(tmp_path)
