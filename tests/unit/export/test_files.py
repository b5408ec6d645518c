"""What a GGUF file holds, read back by the gguf package and compared with the model by a mapping written down here."""

import re

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize

from colpipe.architectures.layers import window_period
from colpipe.errors import ColpipeError
from colpipe.export.files import write_gguf, write_gguf_files
from colpipe.export.settings import COMPUTED
from tests.unit.export.tiny import CONFIGS, FULL, SLIDING, make_folder, make_tokenizer

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
BEHIND = {  # norms behind the blocks
    **LLAMA,
    r"model\.layers\.(\d+)\.post_attention_layernorm\.": r"blk.\1.post_attention_norm.",
    r"model\.layers\.(\d+)\.pre_feedforward_layernorm\.": r"blk.\1.ffn_norm.",
    r"model\.layers\.(\d+)\.post_feedforward_layernorm\.": r"blk.\1.post_ffw_norm.",
}
FUSED = {
    **LLAMA,
    r"model\.layers\.(\d+)\.self_attn\.qkv_proj\.": r"blk.\1.attn_qkv.",
    r"model\.layers\.(\d+)\.mlp\.gate_up_proj\.": r"blk.\1.ffn_up.",
}
NAMES = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite"), LLAMA),
    **{"olmo2": BEHIND, "gemma3_text": BEHIND, "phi3": FUSED},
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
        if family in ("llama", "mistral", "smollm3", "granite") and re.search(
            r"attn_[qk]\.", name
        ):  # i and i + half of a head → neighbours
            half = config.head_dim // 2
            heads = len(values) // config.head_dim
            rows = [h * 2 * half + p * half + i for h in range(heads) for i in range(half) for p in range(2)]
            values = values[rows]
        if family == "gemma3_text" and "norm" in name:
            values = 1 + values
            if "attn_q_norm" in name:  # llama.cpp divides by the root of head_dim
                values = values * np.float32((config.head_dim / config.query_pre_attn_scalar) ** 0.5)
        found[name] = values
    if config.tie_word_embeddings and family not in ("gpt_neox", "olmo2"):
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
    long = {"rope_factors_long.weight", "rope_factors_short.weight"}
    frequencies = long if name == "phi3-longrope" else {"rope_freqs.weight"} if name.endswith("-llama3") else set()
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


def settings(made, name, tmp_path) -> dict:
    _, folder = made(name)
    exported = write_gguf(folder, tmp_path / "my.gguf", "f16")
    return {key.partition(".")[2]: value for key, value in read(exported.path)[0].items()}


def test_mistral_is_a_llama(made, tmp_path):
    fields, _ = read(write_gguf(made("mistral")[1], tmp_path / "my.gguf", "f16").path)
    assert fields["general.architecture"] == "llama" and fields["llama.attention.key_length"] == 32


def test_granites_multipliers(made, tmp_path):
    fields = settings(made, "granite", tmp_path)
    assert fields["attention.scale"] == pytest.approx(0.05) and fields["embedding_scale"] == 3
    assert fields["residual_scale"] == pytest.approx(0.7) and fields["logit_scale"] == 2.5


def test_gemma_3s_windows(made, tmp_path):
    usual, third = (settings(made, name, tmp_path / name) for name in ("gemma3_text", "gemma3_text-third"))
    keys = ("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa", "rope.freq_base")
    assert [usual[key] for key in keys] == [6, 6, 1e4, 1e6] and [third[key] for key in keys] == [6, 3, 3e3, 2e5]
    assert third["rope.scaling.type"] == "linear" and third["rope.scaling.factor"] == 4


def test_what_an_older_llama_cpp_does_not_read_is_said(made, tmp_path):
    said = "an older llama.cpp has full attention in every 6th layer and a local rope_theta of 10000, whatever the file says"
    for name, notes in (("gemma3_text", 0), ("gemma3_text-third", 1)):
        assert write_gguf(made(name)[1], tmp_path / f"{name}.gguf", "f16").notes.count(said) == notes


def test_phi_3s_rotary_positions(made, tmp_path):
    assert settings(made, "phi3-partial", tmp_path / "a")["rope.dimension_count"] == 8
    model, folder = made("phi3-longrope")
    fields, tensors = read(write_gguf(folder, tmp_path / "my.gguf", "q4_0").path)
    assert fields["phi3.rope.scaling.original_context_length"] == 256
    assert fields["phi3.rope.scaling.attn_factor"] == pytest.approx(model.model.rotary_emb.attention_scaling)
    for length in ("long", "short"):
        kind, factors = tensors[f"rope_factors_{length}.weight"]
        assert kind == "F32" and factors.tolist() == pytest.approx(model.config.rope_parameters[f"{length}_factor"])


@pytest.mark.parametrize(
    ("layers", "period"),
    [
        ("ssssf", 5),
        ("ssfssfs", 3),
        ("sf", 2),
        ("ff", 1),
        ("ss", 3),
        ("s", 2),
        ("fs", None),
        ("ssfsf", None),
        ("sff", None),
    ],
)
def test_the_period_of_layers_with_a_window(layers, period):
    kinds = {"s": "sliding_attention", "f": "full_attention"}
    assert window_period([kinds[layer] for layer in layers]) == period


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
            r"config\.json: hidden_act 'relu': of llama, llama\.cpp computes 'silu' only",
        ),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True: of gpt2"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding_window 8"),
        (
            "qwen3",
            {"attention_bias": True},
            "tensor model.layers.0.self_attn.o_proj.bias: llama.cpp has no place for it",
        ),
        (
            "qwen2",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
            "rope_type 'yarn': those of qwen2 that are exported: default, linear",
        ),
        ("mistral", {"sliding_window": 8}, "sliding_window 8: llama.cpp attends to everything in mistral"),
        ("phi3", {"sliding_window": 8}, "sliding_window 8: llama.cpp attends to everything in phi3"),
        (
            "smollm3",
            {"no_rope_layers": [1, 0, 1, 0, 1]},
            r"no_rope_layers \[1, 0, 1, 0, 1\]: .* out of every 4th layer",
        ),
        ("smollm3", {"mlp_bias": True}, "mlp_bias True: of smollm3, llama.cpp computes False only"),
        (
            "granite",
            {"residual_multiplier": 0.0},
            "residual_multiplier 0.0: llama.cpp takes 0 for a multiplier that is",
        ),
        (
            "olmo2",
            {"head_dim": 32},
            r"head_dim 32: of olmo2, llama.cpp takes hidden_size / num_attention_heads \(64 / 4",
        ),
        ("olmo2", {"attention_bias": True}, "attention_bias True: of olmo2"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0: of gemma3_text"),
        (
            "gemma3_text",
            {"layer_types": [SLIDING, FULL, SLIDING, FULL, FULL, SLIDING, SLIDING]},
            "layer_types: full attention in layers 1, 3, 4 of 0 to 6: of gemma3_text, llama.cpp has it in the last",
        ),
        (
            "gemma3_text",
            {"layer_types": [FULL] * 7},
            "layer_types: full attention in layers 0, 1, 2, 3, 4, 5, 6 of 0 to 6",
        ),
        (
            "gemma3_text",
            {"rope_parameters": {SLIDING: {"rope_type": "linear", "factor": 2.0}, FULL: {"rope_type": "default"}}},
            "sliding_attention: rope_type 'linear': llama.cpp has default only there",
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
        ColpipeError, match=r"config\.json: model_type 'qwen2': exported are llama, mistral, qwen3, smollm3"
    ):
        write_gguf(made("qwen2")[1], tmp_path / "my.gguf", "f16")


@pytest.mark.parametrize("kind", ["bert", "what"])  # transformers has one of them
def test_a_family_without_a_table_is_named_before_the_model_is_loaded(tmp_path, kind):
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    with pytest.raises(ColpipeError) as refusal:
        write_gguf(tmp_path, tmp_path / "my.gguf", "f16")
    said = f"{tmp_path}/config.json: model_type '{kind}': exported are {', '.join(COMPUTED)}; llama.cpp's "
    assert str(refusal.value).startswith(said) and "\n" not in str(refusal.value)


def test_types_that_there_are_not(tmp_path):
    with pytest.raises(ColpipeError, match="type 'q5_k': written are f16, q8_0, q4_0"):
        write_gguf(tmp_path, tmp_path / "my.gguf", "q5_k")


def test_a_tokenizer_that_does_not_fit_the_embedding_is_refused(tmp_path):
    make_folder(tmp_path / "model", "llama", make_tokenizer(size=420))
    with pytest.raises(ColpipeError, match="421"):
        write_gguf(tmp_path / "model", tmp_path / "my.gguf", "f16")
