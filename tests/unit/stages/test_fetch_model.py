"""A starting model is staged from a source that is only read."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from colpipe.config.parts import Runtime, Source
from colpipe.errors import ColpipeError
from colpipe.export.vocabulary import pre_tokenizer
from colpipe.jobs.artifacts import read_manifest
from colpipe.jobs.job import Job, JobSpec
from colpipe.stages.fetch_model import main
from tests.conftest import make_tokenizer

SHORT = {
    **{"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"},
    **{"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"},
    **{"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with config.json, safetensors and a tokenizer, not to be changed."""
    folder = tmp_path_factory.mktemp("source")
    tokenizer = make_tokenizer(["the river is old"] * 9, 270)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def source(model, tmp_path):
    return shutil.copytree(model, tmp_path / "source")


def pack(folder, name: str, pre: str = "gpt-2") -> None:
    """A GGUF file of a folder's model, every weight one more than it is there."""
    gguf = pytest.importorskip("gguf")
    config, tokenizer = json.loads((folder / "config.json").read_text()), AutoTokenizer.from_pretrained(folder)
    writer = gguf.GGUFWriter(folder / name, "llama")
    numbers = {"context_length": 64, "embedding_length": 32, "block_count": 2, "feed_forward_length": 64}
    numbers |= {"head_count": 4, "head_count_kv": 2, "layer_norm_rms_eps": 1e-5, "rope_freq_base": 1e4}
    numbers |= {"vocab_size": config["vocab_size"], "rope_dimension_count": 8, "bos_token_id": 0, "eos_token_id": 0}
    for key, value in {**numbers, "tokenizer_model": "gpt2", "tokenizer_pre": pre}.items():
        getattr(writer, f"add_{key}")(value)
    words = [word for word, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    writer.add_token_list(words)
    writer.add_token_types([3 if word == "</s>" else 1 for word in words])
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    for key, value in load_file(folder / "model.safetensors").items():
        stem = key.removesuffix(".weight")
        packed = OUTSIDE.get(stem) or f"blk.{stem.split('.')[2]}.{SHORT[stem.split('.', 3)[3]]}"
        writer.add_tensor(f"{packed}.weight", (value + 1).numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def content(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def fetch(source, output, **more) -> None:
    """The stage, in this process."""
    settings = Source(path=str(source), **more)
    with Job(JobSpec("fetch_model", output, output.with_name("work"), settings, Runtime(), {}, 0)) as job:
        main(job)


def test_safetensors_win_over_a_gguf_beside_them_and_the_log_says_so(source, tmp_path, capsys):
    pack(source, "model-f32.gguf")
    before = content(source)
    fetch(source, tmp_path / "out")
    assert content(source) == before
    assert "model.safetensors is taken, model-f32.gguf beside it is not" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.gguf"))
    assert content(tmp_path / "out")["model.safetensors"] == before["model.safetensors"]


@pytest.mark.parametrize("beside", [True, False], ids=["beside a config", "alone"])
def test_a_gguf_is_converted_into_files_of_its_own(source, tmp_path, beside):
    weight = load_file(source / "model.safetensors")["model.norm.weight"]
    pack(source, "model-f32.gguf")
    (source / "model.safetensors").unlink()
    (source / "added_tokens.json").write_text('{"<stale>": 269}')
    (source / "LICENSE").write_text("mine")
    before = content(source)
    fetch(source, tmp_path / "out", **({} if beside else {"files": ["*.gguf"]}))
    assert content(source) == before
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(made.model.norm.weight, weight + 1)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("the river")["input_ids"]
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert "added_tokens.json" not in left and ("LICENSE" in left) == beside
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir() if path.name != "LICENSE")


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_a_gguf_is_split_as_its_pre_tokenizer_is_named(source, tmp_path, capsys, pre):
    """transformers takes GPT-2's for all; what is exported again names the same."""
    pack(source, "model-f32.gguf", pre)
    (source / "model.safetensors").unlink()
    fetch(source, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    steps = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]
    assert pre_tokenizer(steps, "here") == pre
    words = [word for word, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 1234")]
    expected = {"gpt-2": ["Ġ1234"], "smollm": ["Ġ", *"1234"], "llama-bpe": ["Ġ", "123", "4"], "qwen2": ["Ġ", *"1234"]}
    assert words == ["in", *expected[pre]]
    assert "pre-tokenizer" not in capsys.readouterr().err


def test_a_pre_tokenizer_that_is_not_known_is_told(source, tmp_path, capsys):
    pack(source, "model-f32.gguf", "tekken")
    (source / "model.safetensors").unlink()
    fetch(source, tmp_path / "out")
    assert "model-f32.gguf: its pre-tokenizer 'tekken' is not known here: some texts may be split into" in (
        capsys.readouterr().err
    )


def test_of_several_gguf_files_one_must_be_named(source, tmp_path):
    (source / "model.safetensors").unlink()
    for name in ("a.gguf", "b.gguf"):
        (source / name).write_bytes(b"GGUF")
    with pytest.raises(
        ColpipeError, match=r"has 2 .gguf files \(a.gguf, b.gguf\) and no safetensors; name one with `files"
    ):
        fetch(source, tmp_path / "out")
    with pytest.raises(ColpipeError, match=rf"^{re.escape(str(source))}/b.gguf: cannot be read as GGUF"):
        fetch(source, tmp_path / "out", files=["b.gguf"])


def damage(source, how: str) -> None:
    path = source / "model.safetensors"
    match how:
        case "cut":
            path.write_bytes(path.read_bytes()[:-40])
        case "cut shard":
            path.rename(source / "model-1.safetensors")
            (source / "model-1.safetensors").write_bytes((source / "model-1.safetensors").read_bytes()[:-1])
            (source / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
        case "nan":
            tensors = load_file(path)
            tensors["model.norm.weight"][3] = float("nan")
            save_file(tensors, path, {"format": "pt"})
        case "other name":
            path.rename(source / "weights.safetensors")
        case "index":
            path.unlink()
            (source / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
        case "config":
            (source / "config.json").write_text('{"model_type":')


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", r"model.safetensors: weights cannot be read: .*"),
        ("cut shard", r"model-1.safetensors: weights cannot be read: .*"),
        ("nan", r"model.safetensors: tensor model.norm.weight holds NaN or infinite values"),
        (
            "other name",
            r"no .safetensors file that transformers reads, only weights.safetensors; weights in other formats",
        ),
        ("index", r"model-1.safetensors: weights cannot be read: model.safetensors.index.json names the file"),
        ("config", r"config.json: cannot be read"),
    ],
)
def test_a_damaged_source_is_found_when_it_is_fetched(source, tmp_path, how, message):
    damage(source, how)
    with pytest.raises(ColpipeError, match=message) as refused:
        fetch(source, tmp_path / "out")
    assert how == "other name" or str(refused.value).startswith(f"{source}/")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_good_source_is_linked(source, tmp_path):
    fetch(source, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_symlink()
    assert "model.safetensors" in read_manifest(tmp_path / "out")["files"]
