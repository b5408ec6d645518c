"""What a GGUF file holds, read back by the gguf package and compared with the model by a mapping written down here."""

import re

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize

from colpipe.errors import ColpipeError
from colpipe.export.files import write_gguf, write_gguf_files
from colpipe.export.settings import COMPUTED
from tests.unit.export.tiny import CONFIGS, make_folder, make_tokenizer

LLAMA = {
    r"model\.embed_tokens\.": "token_embd.",
    r"model\.norm\.": "output_norm.",
    r"lm_head\.": "output.",
    r"model\.layers\.(\d+)\.input_layernorm\.": r"blk.\1.attn_norm.",
    r"model\.layers\.(\d+)\.post_attention_layernorm\.": r"blk.\1.ffn_norm.",
    r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.": r"blk.\1.attn_\2.",
    r"model\.layers\.(\d+)\.self_attn\.([qk])_norm\.": r"blk.\1.attn_\2_norm.",
    r"model\.layers\.(\d+)\.self_attn\.o_proj\.": r"blk.\1.attn_output.",
    r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.": r"blk.\1.ffn_\2.",
}
NAMES = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gpt2": {
        r"transformer\.wte\.": "token_embd.",
        r"transformer\.wpe\.": "position_embd.",
        r"transformer\.ln_f\.": "output_norm.",
        r"lm_head\.": "output.",
        r"transformer\.h\.(\d+)\.ln_1\.": r"blk.\1.attn_norm.",
        r"transformer\.h\.(\d+)\.ln_2\.": r"blk.\1.ffn_norm.",
        r"transformer\.h\.(\d+)\.attn\.c_attn\.": r"blk.\1.attn_qkv.",
        r"transformer\.h\.(\d+)\.attn\.c_proj\.": r"blk.\1.attn_output.",
        r"transformer\.h\.(\d+)\.mlp\.c_fc\.": r"blk.\1.ffn_up.",
        r"transformer\.h\.(\d+)\.mlp\.c_proj\.": r"blk.\1.ffn_down.",
    },
    "gpt_neox": {
        r"gpt_neox\.embed_in\.": "token_embd.",
        r"gpt_neox\.final_layer_norm\.": "output_norm.",
        r"(embed_out|lm_head)\.": "output.",
        r"gpt_neox\.layers\.(\d+)\.input_layernorm\.": r"blk.\1.attn_norm.",
        r"gpt_neox\.layers\.(\d+)\.post_attention_layernorm\.": r"blk.\1.ffn_norm.",
        r"gpt_neox\.layers\.(\d+)\.attention\.query_key_value\.": r"blk.\1.attn_qkv.",
        r"gpt_neox\.layers\.(\d+)\.attention\.dense\.": r"blk.\1.attn_output.",
        r"gpt_neox\.layers\.(\d+)\.mlp\.dense_h_to_4h\.": r"blk.\1.ffn_up.",
        r"gpt_neox\.layers\.(\d+)\.mlp\.dense_4h_to_h\.": r"blk.\1.ffn_down.",
    },
}


def expected(model) -> dict[str, np.ndarray]:
    """llama.cpp's name → values, row by row where a layout differs."""
    config, family = model.config, model.config.model_type
    found = {}
    for key, tensor in model.state_dict().items():
        name = next(re.sub(pattern, new, key) for pattern, new in NAMES[family].items() if re.match(pattern, key))
        values = tensor.numpy()
        if family == "gpt2" and values.ndim == 2 and name.startswith("blk"):
            values = values.T
        if "attn_qkv" in name and family == "gpt_neox":  # each head's q, k, v → all q, all k, all v
            width, heads = config.hidden_size // config.num_attention_heads, config.num_attention_heads
            rows = [(3 * head + part) * width + i for part in range(3) for head in range(heads) for i in range(width)]
            values = values[rows]
        if family == "llama" and re.search(r"attn_[qk]\.", name):  # i and i + half of a head → neighbours
            half = config.head_dim // 2
            heads = len(values) // config.head_dim
            rows = [h * 2 * half + p * half + i for h in range(heads) for i in range(half) for p in range(2)]
            values = values[rows]
        found[name] = values
    if config.tie_word_embeddings and family != "gpt_neox":
        del found["output.weight"]
    if family == "gpt_neox" and not config.attention_bias:
        for layer in range(2):
            found |= {f"blk.{layer}.attn_qkv.bias": np.zeros(192), f"blk.{layer}.attn_output.bias": np.zeros(64)}
    return found


def read(path) -> tuple[dict, dict[str, tuple[str, np.ndarray]]]:
    """Fields of a GGUF file, and name → (kind, values) of its tensors."""
    reader = gguf.GGUFReader(path)
    tensors = {each.name: (each.tensor_type.name, dequantize(each.data, each.tensor_type)) for each in reader.tensors}
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Name of `CONFIGS` → (model, folder), each made once."""
    known = {}

    def make(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            known[name] = make_folder(folder, name), folder
        return known[name]

    return make


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_is_there_under_its_name(made, name, tmp_path):
    """Half precision to the bit; within half a step of a block's scale in Q8_0, a whole one in Q4_0."""
    model, folder = made(name)
    values = expected(model)
    frequencies = {"rope_freqs.weight"} if name == "llama-llama3" else set()
    for exported in write_gguf_files(folder, {type: tmp_path / f"{type}.gguf" for type in ("f16", "q8_0", "q4_0")}):
        fields, tensors = read(exported.path)
        assert set(tensors) == set(values) | frequencies
        assert exported.bytes == exported.path.stat().st_size and exported.not_quantised == 0
        head = "output.weight" if "output.weight" in values else "token_embd.weight"
        for key, value in values.items():
            kind, stored = tensors[key]
            assert stored.shape == value.shape, key
            if value.ndim == 1 or key == "position_embd.weight":
                assert kind == "F32" and np.array_equal(stored, value), key
                continue
            assert kind == ("Q8_0" if exported.type == "q4_0" and key == head else exported.type.upper()), key
            if kind == "F16":
                assert np.array_equal(stored, value), key
                continue
            scale = abs(value).reshape(-1, 32).max(1, keepdims=True) / {"Q8_0": 127, "Q4_0": 8}[kind]
            error = abs(stored - value).reshape(-1, 32) / scale
            assert error.max() < {"Q8_0": 0.6, "Q4_0": 1.01}[kind], key
        assert fields["general.file_type"] == {"f16": 1, "q8_0": 7, "q4_0": 2}[exported.type]


def test_what_the_file_says_of_the_model(made, tmp_path):
    _, folder = made("qwen3-untied")
    write_gguf(folder, tmp_path / "my.gguf", "f16")
    fields, _ = read(tmp_path / "my.gguf")
    assert {key.partition(".")[2]: value for key, value in fields.items() if key.startswith("qwen3.")} == {
        "context_length": 128, "embedding_length": 96, "block_count": 2, "feed_forward_length": 96, "vocab_size": 400,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 32, "rope.freq_base": 10000,
        "attention.value_length": 32, "attention.layer_norm_rms_epsilon": pytest.approx(1e-6), "rope.dimension_count": 32,
    }  # fmt: skip
    assert (fields["general.architecture"], fields["general.name"]) == ("qwen3", "my")
    assert [fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "padding")] == [1, 2, 0]
    assert fields["tokenizer.ggml.tokens"][:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert fields["tokenizer.ggml.tokens"][390:] == ["<note>", *(f"[PAD{row}]" for row in range(391, 400))]
    assert fields["tokenizer.ggml.token_type"] == [3] * 3 + [1] * 387 + [4] + [5] * 9
    assert len(fields["tokenizer.ggml.merges"]) == 390 - 256 - 3


def test_llama_3_divides_frequencies(made, tmp_path):
    model, folder = made("llama-llama3")
    write_gguf(folder, tmp_path / "my.gguf", "f16")
    _, tensors = read(tmp_path / "my.gguf")
    plain = 10000.0 ** -(np.arange(0, 32, 2) / 32)
    kind, factors = tensors["rope_freqs.weight"]
    assert kind == "F32" and np.allclose(plain / factors, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-5)
    assert factors[0] == pytest.approx(1) and factors[-1] == pytest.approx(8)


def test_widths_that_are_no_blocks_stay_in_half_precision(tmp_path):
    make_folder(tmp_path / "model", "llama", hidden_size=40, intermediate_size=72, seed=1)
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "q4_0")
    _, tensors = read(tmp_path / "my.gguf")
    narrow = [name for name, (kind, _) in tensors.items() if kind == "F16"]
    assert len(narrow) == exported.not_quantised == 1 + 2 * 6  # all that read 40 or 72 channels
    assert {kind for name, (kind, _) in tensors.items() if "attn_output" in name} == {"Q4_0"}  # which reads 64
    assert f"13 tensors stay in F16: their width is no multiple of 32 ({narrow[0]})" in exported.notes


def test_nothing_is_written_over(made, tmp_path):
    _, folder = made("gpt2")
    first = write_gguf(folder, tmp_path / "my.gguf", "q8_0")
    before = first.path.stat().st_ino
    assert write_gguf(folder, first.path, "q8_0") == first and first.path.stat().st_ino == before
    with pytest.raises(ColpipeError, match=r"my\.gguf: there is a file of another content; move it away"):
        write_gguf(folder, first.path, "f16")
    first.modelfile.write_text("mine")
    with pytest.raises(ColpipeError, match=r"my\.Modelfile: there is a file of another content"):
        write_gguf(folder, first.path, "q8_0")
    assert first.modelfile.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.Modelfile", "my.gguf"]


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        (
            "llama",
            {"hidden_act": "relu"},
            r"config\.json: hidden_act 'relu': of a llama, llama\.cpp computes 'silu' only",
        ),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True: of a gpt2"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding_window 8"),
        (
            "qwen3",
            {"attention_bias": True},
            "tensor model.layers.0.self_attn.o_proj.bias: llama.cpp has no place for it",
        ),
        (
            "qwen2",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
            "rope_type 'yarn': those of a qwen2 that are exported: default, linear",
        ),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path, name, more, said):
    make_folder(tmp_path / "model", name, **more)
    with pytest.raises(ColpipeError, match=said):
        write_gguf(tmp_path / "model", tmp_path / "my.gguf", "f16")
    assert not (tmp_path / "my.gguf").exists()


def test_a_weight_beyond_half_precision_is_refused(tmp_path):
    model = make_folder(tmp_path / "model", "llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = 70000
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ColpipeError, match=r"tensor blk\.1\.ffn_up\.weight holds 70000: beyond F16"):
        write_gguf(tmp_path / "model", tmp_path / "out/my.gguf", "f16")
    assert not list((tmp_path / "out").iterdir())


def test_a_family_that_is_not_exported_yet(made, tmp_path, monkeypatch):
    monkeypatch.delitem(COMPUTED, "qwen2")
    with pytest.raises(
        ColpipeError, match=r"config\.json: model_type 'qwen2': exported are llama, qwen3, gpt2, gpt_neox"
    ):
        write_gguf(made("qwen2")[1], tmp_path / "my.gguf", "f16")


def test_types_that_there_are_not(tmp_path):
    with pytest.raises(ColpipeError, match="type 'q5_k': written are f16, q8_0, q4_0"):
        write_gguf(tmp_path, tmp_path / "my.gguf", "q5_k")


def test_a_tokenizer_that_does_not_fit_the_embedding_is_refused(tmp_path):
    make_folder(tmp_path / "model", "llama", make_tokenizer(size=420))
    with pytest.raises(ColpipeError, match="421"):
        write_gguf(tmp_path / "model", tmp_path / "my.gguf", "f16")
