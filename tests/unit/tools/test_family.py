"""Guessed tables: those of every known family, of families that have none, and what cannot be told."""

import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from colpipe.__main__ import main
from colpipe.architectures import families
from colpipe.architectures.families import TABLES
from colpipe.architectures.family import Family, TensorSpec
from colpipe.architectures.settable import SETTABLE
from colpipe.learngene.weights import Weights
from colpipe.tools.family import page
from colpipe.tools.family_table import flow, tensors
from colpipe.tools.family_table.attention import blocks, layout
from colpipe.tools.family_table.guess import guess
from colpipe.tools.family_table.source import differences
from tests.conftest import CHECKOUT
from tests.unit.learngene import test_whole_models as whole

# The class of phi3 does not name head_dim, though its attention reads it; longrope's factors are checked against
# hidden / heads, so its table leaves the key out.
EXCEPTIONS = {"phi3": ["keys: head_dim: the table has None, the guess 'head_dim'"]}
ROPE_FREE = {"layer_types", "no_rope_layers"}  # lists that a class works out


def executed(text: str) -> tuple[Family, dict]:
    """What a printed page defines: the family, and its entry of SETTABLE."""
    made: dict = {"Family": Family, "TensorSpec": TensorSpec, "SETTABLE": {}}
    exec(text, made)
    [family] = [value for value in made.values() if isinstance(value, Family)]
    return family, made["SETTABLE"]


@pytest.mark.parametrize("name", TABLES)
def test_the_guess_is_the_table(name):
    text = page(name, {})
    family, settable = executed(text)
    known = TABLES[name]
    assert differences(known, family) == EXCEPTIONS.get(name, [])
    expected = {key: tensor for key, tensor in known.tensors.items() if tensor.when in {"", *known.biases}}
    assert dict(family.tensors) == expected
    assert list(family.tensors)[-1] == list(expected)[-1]
    assert {key: each for key, each in settable[name].items() if key not in ROPE_FREE} == {
        key: each for key, each in SETTABLE[name].items() if key not in ROPE_FREE
    }
    assert ("# the table of " in text) == (name not in EXCEPTIONS)
    assert re.findall("^# check: (.*?) ", text, re.MULTILINE) == (
        ["query_pre_attn_scalar"] if name == "gemma3_text" else []
    )


SIZES = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 20}
CASES = {  # (model type, what config.json says)
    "starcoder2": ("starcoder2", {**SIZES, "num_key_value_heads": 3}),
    "starcoder2-no-bias": ("starcoder2", {**SIZES, "num_key_value_heads": 3, "use_bias": False}),
    "stablelm": ("stablelm", {**SIZES, "num_key_value_heads": 3, "rope_parameters": {"partial_rotary_factor": 0.5}}),
    "nemotron": ("nemotron", {**SIZES, "num_key_value_heads": 3, "head_dim": 8}),
    "olmo3": ("olmo3", {**SIZES, "num_key_value_heads": 3}),
    "glm4": ("glm4", {**SIZES, "num_key_value_heads": 3, "head_dim": 8}),
}
STRANGERS = {name: case for name, case in CASES.items() if case[0] not in TABLES}  # one may have been added since


@pytest.fixture(params=STRANGERS)
def stranger(request, tmp_path):
    """(a model of a family that has no table, its folder), with the table that is printed of its type in place."""
    kind, config = STRANGERS[request.param]
    text = page(kind, {})
    family, _ = executed(text)
    torch.manual_seed(3)
    config = {"rope_parameters": {}, **config}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 100.0, **config["rope_parameters"]}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config, pad_token_id=0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.3, 0.3) if parameter.ndim == 1 else parameter.normal_(0, 0.3)
    model.save_pretrained(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.TABLES, kind, family)
        families._variant.cache_clear()
        patch.setitem(families.FAMILIES, kind, families.variant_of(family, {}))
        yield model, tmp_path
    families._variant.cache_clear()


def test_a_family_without_a_table_is_its_printed_page(stranger):
    model, _ = stranger
    whole.test_weights_have_the_sizes_of_what_transformers_loads(stranger)
    whole.test_a_subset_of_everything_is_the_model(stranger)
    whole.test_hypercloning_is_the_model(stranger)
    whole.test_lossless_is_the_model(stranger)
    whole.test_an_order_of_importance_is_the_model(stranger)
    whole.test_layers_that_move_keep_what_they_are(stranger)
    assert Weights(model).family.name == model.config.model_type


def test_a_model_folder_is_read_with_its_switches(tmp_path):
    config = {"model_type": "stablelm", "qk_layernorm": False, "use_parallel_residual": True, "hidden_size": 2560}
    (tmp_path / "config.json").write_text(json.dumps({**config, "eos_token_id": 50256, "rope_scaling": None}))
    family, _ = executed(page(str(tmp_path), {}))
    alone, _ = executed(page("stablelm", {}))
    gone = {name for name in alone.tensors if "post_attention_layernorm" in name}
    assert len(gone) == 2 and set(family.tensors) == set(alone.tensors) - gone
    assert {tensor.after for tensor in family.tensors.values() if tensor.role == "read"} == {
        "model.layers.{layer}.input_layernorm.weight"
    }


def test_what_a_table_cannot_say_is_listed():
    said = {
        "cohere": (
            "attention and feed-forward part read the same stream",
            "logits are 0.0625 times what the head puts out: see HEADS of colpipe/hf/logits.py",
            "logit_scale is 0.0625: a factor",
            "use_qk_norm: true or false changes which tensors there are (model.layers.*.self_attn.k_norm.weight, ",
        ),
        "opt": (
            "model.decoder.embed_positions.weight: no axes give dimension 0 of (42, 96)",
            "word_embed_proj_dim: is a size of tensors, and no axis",
            "no key has norm_eps in it",
        ),
        "phi": ("lm_head.bias: a bias of the head",),
        "xglm": ("the stream that enters the first layer is not the sum of the embeddings",),
        "helium": ("head_dim is a key, but a model runs only where heads × head_dim is hidden",),
        "gpt_bigcode": (
            "its rows are in an order that no pattern says: q of head 0, q of head 1, q of head 2, q of head 3, "
            "q of head 4, q of head 5, k of head 0+1+2+3+4+5, v of head 0+1+2+3+4+5",
        ),
        "falcon": ("1 modules read for the attention and 0 write what its heads put out",),
    }
    for name, lines in said.items():
        checks = "\n".join(guess(name).checks)
        assert all(line in checks for line in lines), checks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lama"], "lama: transformers has no model type 'lama'; did you mean llama"),
        (["t5"], "t5: transformers has no causal language model of type 't5'"),
        (["gemma3"], r"gemma3: a gemma3 is made of parts \(.*gemma3_text.*\); give the type of the one that writes"),
        (["bloom"], "bloom: BloomConfig has no key for the axis position: none of max_position_embeddings, "),
        (["mixtral"], r"mixtral: model.layers.0.mlp.experts.gate_up_proj has 3 dimensions, \(8, 152, 180\): a mixture"),
        (
            ["bert"],
            "BertLMHeadModel: what leaves bert.encoder.layer.0 is not what entered it plus what its modules put",
        ),
        (["olmo"], "self_attn.q_proj reads what model.layers.0.input_layernorm puts out, which has no weights"),
        (["gptj"], r"a tiny gptj cannot be made and run, .*; a key that .* --set KEY=VALUE; tried: vocabulary 131, "),
        (["gptj", "--set", "rotary_dim"], "--set 'rotary_dim': give KEY=VALUE, as in --set rotary_dim=8"),
        (["gptj", "--set", "rotary_dim=["], r"--set 'rotary_dim=\[': '\[' is no value in YAML"),
    ],
)
def test_what_has_no_table_is_refused_in_a_line(words, message):
    with pytest.raises(SystemExit, match=f"^colpipe family: error: .*{message}"):
        main(["family", *words])


def test_a_key_that_belongs_to_sizes_can_be_given(capsys):
    main(["family", "gptj", "--set", "rotary_dim=8"])
    family, _ = executed(capsys.readouterr().out)
    assert family.tensors["transformer.h.{layer}.attn.k_proj.weight"].axes == "(head head_dim) hidden"


def test_differences_are_told_by_name():
    llama, qwen2 = TABLES["llama"], TABLES["qwen2"]
    told = differences(qwen2, llama)
    assert (
        "model.layers.{layer}.self_attn.q_proj.bias: the table has "
        'TensorSpec("(group query head_dim)", "inside"), the guess '
        'TensorSpec("(group query head_dim)", "inside", when="attention_bias")'
    ) in told
    assert "usual: num_key_value_heads: the table has 32, the guess None" in told
    assert any(line.startswith("whole_heads: the table has False, the guess True") for line in told)
    assert differences(qwen2, qwen2) == []
    without = {key: value for key, value in TABLES["gpt2"].tensors.items() if "ln_f" not in key}
    fewer = differences(TABLES["gpt2"], replace(TABLES["gpt2"], tensors=without))
    assert fewer == [
        f'transformer.ln_f.{kind}: the table has TensorSpec("hidden", "{role}"), the guess no such tensor'
        for kind, role in (("weight", "gain"), ("bias", "shift"))
    ]


def heads(*parts: str) -> list:
    """`q0 k01`: (q, {0}), (k, {0, 1})."""
    return [(part[0], frozenset(map(int, part[1:]))) for part in parts]


@pytest.mark.parametrize(
    ("stored", "grouped", "patterns"),
    [
        (heads("q0", "q1", "k0", "k1", "v0", "v1"), False, ["(qkv head head_dim)"]),
        (heads("q0", "k0", "v0", "q1", "k1", "v1"), False, ["(head qkv head_dim)"]),
        (heads("v0", "v1"), False, ["(head head_dim)"]),
        (heads("q0", "q1", "v0", "v1", "k0", "k1"), False, ["(head head_dim)"] * 3),
        (heads("q0", "q1", "q2", "q3"), True, ["(group query head_dim)"]),
        (heads("k01", "k23"), True, ["(group head_dim)"]),
        (heads("k02", "k13"), True, None),  # heads that take turns
        (heads("q0", "q2", "q1", "q3"), True, None),
        (heads("q0", "q1", "q2", "q3", "k01", "k23"), True, ["(group query head_dim)", "(group head_dim)"]),
        (heads("q0", "q1", "k01", "v01", "q2", "q3", "k23", "v23"), True, None),  # group after group
        (heads("q0", "q1", "q2"), True, None),
    ],
)  # fmt: skip
def test_orders_of_heads(stored, grouped, patterns):
    count = 4 if grouped else 2
    assert layout(stored, count, 2, grouped) == patterns
    rows = [row for row in stored for _ in range(3)]
    assert blocks(rows, 3) == stored
    assert blocks(rows[1:] + rows[:1], 3) is None


def tiny_gpt2() -> tuple:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=131, n_embd=96, n_head=6, n_layer=2, n_positions=40)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model, model.transformer.h


def test_layers_that_differ_and_factors_are_told():
    model, layers = tiny_gpt2()
    layers[1].ln_2.forward = lambda stream: 2 * stream + layers[1].ln_2.bias
    found = flow.flow_of(model, 2)
    assert found.checks == []  # still a norm by what it is given
    assert flow.norm_kind(layers[1].ln_2)[0] == ""
    assert flow.norm_kind(layers[0].ln_2) == ("layer", 0.0)
    inner = layers[0].mlp.forward
    layers[0].mlp.forward = lambda stream: inner(stream) / 2
    found = flow.flow_of(model, 2)
    assert found.modules["transformer.h.0.mlp.c_proj"].factor == 0.5
    assert found.checks == ["layers do different things: the table has one description for all"]


def test_logits_that_are_capped_are_told():
    checks = guess("gemma3_text", {"final_logit_softcapping": 0.5}).checks
    assert any("logits are not what the head puts out: HEADS of colpipe/hf/logits.py" in line for line in checks)


def test_a_parallel_layer_is_seen():
    assert not flow.flow_of(tiny_gpt2()[0], 2).parallel
    assert guess("gpt_neox").checks == []  # it has a key for it
    assert any("read the same stream" in line for line in guess("phi").checks)


def test_parts_that_take_turns_are_told(monkeypatch):
    monkeypatch.setattr(tensors, "row_units", lambda *_: [{0, 1}, {2, 3}])
    assert any(
        "its parts are not one below the other: its first units are rows" in line for line in guess("phi3").checks
    )


def test_the_page_has_a_row_for_every_family():
    """Whether it can be turned or given more heads is worked out from its table."""
    text = (CHECKOUT / "docs/families.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| `.*", text, re.MULTILINE)
    ]
    assert [row[0].strip("`") for row in rows] == list(TABLES)
    for name, _, _, lossless, *_, rotate, _, _ in rows:
        family = TABLES[name.strip("`")]
        reason = "LayerNorm" if family.norm == "layer" else "norms behind blocks"
        assert rotate == (f"no: {reason}" if family.rotation_problem else "yes")
        assert lossless == ("no more heads" if family.norms_all_heads else "yes")
