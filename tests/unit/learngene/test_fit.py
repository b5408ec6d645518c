"""Fitted cuts, against plain least squares in float64, and where what is cut was not needed."""

import copy
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from colpipe.errors import ColpipeError
from colpipe.learngene.elastic import ElasticMember, cut
from colpipe.learngene.fit import fit, fitted
from colpipe.learngene.importance import measure, reorder, signal_gain
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.streams import gather, is_parallel
from colpipe.learngene.weights import Weights
from tests.unit.learngene.tiny import assert_same, distance

GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 4, "n_head": 4, "n_inner": 24, "n_positions": 16}
NEOX = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 24}
NEOX |= {"max_position_embeddings": 16, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}
NEOX["rope_parameters"]["rope_theta"] = 10000.0
LLAMA = {
    **NEOX,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
}
KINDS = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
WINDOW = {"use_sliding_window": True, "sliding_window": 3, "layer_types": KINDS}

MULTIPLIED = {
    "residual_multiplier": 0.4,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.3,
    "logits_scaling": 4.0,
}
GEMMA = {**LLAMA, "layer_types": KINDS, "sliding_window": 3, "query_pre_attn_scalar": 6, "rope_parameters": None}

# name → family, configuration
VARIANTS = {
    "gpt2": ("gpt2", GPT2),
    "gpt2-inverse-untied": (
        "gpt2",
        {
            **GPT2,
            "scale_attn_by_inverse_layer_idx": True,
            "reorder_and_upcast_attn": True,
            "tie_word_embeddings": False,
        },
    ),
    "neox": ("gpt_neox", NEOX),
    "neox-no-bias": ("gpt_neox", {**NEOX, "attention_bias": False}),
    "neox-serial": ("gpt_neox", {**NEOX, "use_parallel_residual": False}),
    "neox-serial-no-bias": ("gpt_neox", {**NEOX, "use_parallel_residual": False, "attention_bias": False}),
    "llama": ("llama", {**LLAMA, "tie_word_embeddings": True}),
    "llama-biases": ("llama", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {**LLAMA, **WINDOW}),
    "qwen3": ("qwen3", {**LLAMA, "head_dim": 6}),
    "qwen3-bias": ("qwen3", {**LLAMA, **WINDOW, "attention_bias": True}),
    "granite": ("granite", {**LLAMA, **MULTIPLIED, "mlp_bias": True}),
    "mistral": ("mistral", {**LLAMA, "sliding_window": 3}),
    "smollm3": ("smollm3", {**LLAMA, "no_rope_layers": [1, 0, 1, 1]}),
    "phi3": ("phi3", LLAMA),
    "gemma3": ("gemma3_text", GEMMA),
    "gemma3-bias": ("gemma3_text", {**GEMMA, "attention_bias": True, "tie_word_embeddings": False}),
    "olmo2": ("olmo2", LLAMA),
}
ROTATED = [name for name in VARIANTS if name.startswith(("llama", "mistral", "qwen", "smollm3", "granite", "phi3"))]
CASES = [(name, "rank") for name in VARIANTS] + [(name, "rotate") for name in ROTATED]

# family → modules of a layer: what writes (attention, feed-forward), and the norm between them
MODULES = {
    "gpt2": ("transformer.h.{}", "attn.c_proj", "mlp.c_proj", "ln_2", "transformer.ln_f"),
    "gpt_neox": (
        *("gpt_neox.layers.{}", "attention.dense", "mlp.dense_4h_to_h", "post_attention_layernorm"),
        "gpt_neox.final_layer_norm",
    ),
    "gemma3_text": (
        *("model.layers.{}", "self_attn.o_proj", "mlp.down_proj", "pre_feedforward_layernorm", "model.norm"),
    ),
    "olmo2": (
        "model.layers.{}",
        "self_attn.o_proj",
        "mlp.down_proj",
        "mlp",
        "model.norm",
    ),  # which reads the stream itself
}
# family → gains of the norms behind attention and feed-forward, and what is added to them
BEHIND = {
    family: ("post_attention_layernorm", "post_feedforward_layernorm", offset)
    for family, offset in (("gemma3_text", 1.0), ("olmo2", 0.0))
}
LLAMA_MODULES = ("model.layers.{}", "self_attn.o_proj", "mlp.down_proj", "post_attention_layernorm", "model.norm")
BATCHES = [*torch.randint(0, 50, (6, 2, 16), generator=torch.Generator().manual_seed(5)), torch.tensor([[7, 3, 9]])]


def made(name: str, **more):
    """A model of a variant, every tensor random."""
    family, config = VARIANTS[name]
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**config, **more}, pad_token_id=0))
    with torch.no_grad():
        for tensor, parameter in model.named_parameters():
            gain = (
                tensor.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")) and "gemma" not in family
            )
            parameter.copy_(torch.randn_like(parameter) * 0.3 + gain)
    return model.eval()


def smaller(weights: Weights, **sizes: int) -> dict[str, int]:
    """Sizes of a cut on every axis that the family lets go."""
    target = {**weights.sizes, "layer": 2, "ffn": 18, **sizes}
    if "group" in weights.family.keys:
        hidden = 12 if "head_dim" in weights.family.keys else weights.sizes["query"] * weights.sizes["head_dim"]
        target |= {"group": 1, "head": weights.sizes["query"], "hidden": hidden}
    else:
        target |= {"group": 3, "head": 3, "hidden": 12}
    return target


def ordered(model, select: str):
    """The model in the order of importance, loaded, and a cut of it."""
    order = reorder(Weights(model), measure(model, BATCHES), select)
    source = order.load()
    weights = Weights(source)
    target = smaller(weights)
    gain = signal_gain(order.details["energy"], weights.sizes["hidden"], target["hidden"])
    return source, take_subset(weights, target, "rank", order.details["ranking"], gain=gain)


@torch.no_grad()
def seen(model, modules: list[str]) -> list[np.ndarray]:
    """What enters the modules, for all tokens, in float64."""
    rows = [[] for _ in modules]
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, kept=kept: kept.append(given[0].flatten(0, 1))
        )
        for name, kept in zip(modules, rows, strict=True)
    ]
    for ids in BATCHES:
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return [torch.cat(kept).numpy() for kept in rows]


def refit_plainly(model, kept: list[int], family: str, source, ridge: float, parallel: bool) -> None:
    """The walk, one projection after another, on whole activations, with numpy; changes the model, which is in float64."""
    block, attention, feed, norm, final = MODULES.get(family, LLAMA_MODULES)

    def entrances(depth: int) -> list[str]:
        return [*(block.format(layer) for layer in range(depth)), final]

    depth = source.config.num_hidden_layers
    own, theirs = entrances(len(kept)), entrances(depth)
    for layer, (origin, following) in enumerate(itertools.pairwise([*kept, depth])):
        first, second = ([f"{block.format(layer)}.{part}"] for part in (attention, feed))
        middle = f"{block.format(layer)}.{norm}", f"{block.format(origin)}.{norm}"
        steps = [(first, *middle), (second, own[layer + 1], theirs[following])]
        if parallel:
            steps = [(first + second, own[layer + 1], theirs[following])]
        for writers, here, there in steps:
            *inputs, stream = seen(model, [*writers, here])
            (target,) = seen(source, [there])
            inside, missing = np.concatenate(inputs, 1), target[:, : stream.shape[1]] - stream
            weight = 1 / np.sqrt((target[:, : stream.shape[1]] ** 2).mean(1, keepdims=True))
            if family in BEHIND:
                name, offset = BEHIND[family][step_of(writers)], BEHIND[family][2]
                norm_behind = model.get_submodule(f"{block.format(layer)}.{name}")
                refit_behind_plainly(model.get_submodule(*writers), norm_behind, offset, inside, missing, weight, ridge)
                continue
            inside = inside * getattr(model.config, "residual_multiplier", 1.0)
            inside, missing = inside * np.sqrt(weight), missing * np.sqrt(weight)
            width, scale = inside.shape[1], (inside**2).sum(0).mean()
            modules = [model.get_submodule(name) for name in writers]
            biased = [module for module in modules if module.bias is not None]
            system = np.concatenate([inside, np.sqrt(ridge * scale) * np.eye(width)])
            if biased:
                ones = np.concatenate([np.sqrt(weight[:, 0]), np.zeros(width)])
                system = np.concatenate([system, ones[:, None]], 1)
            change, *_ = np.linalg.lstsq(system, np.concatenate([missing, np.zeros((width, missing.shape[1]))]))
            change = torch.from_numpy(change)
            start = 0
            for module, given in zip(modules, inputs, strict=True):
                part = change[start : start + given.shape[1]]
                start += given.shape[1]
                module.weight.data += part if family == "gpt2" else part.T
            if biased:
                biased[-1].bias.data += change[-1] / getattr(model.config, "residual_multiplier", 1.0)


def step_of(writers: list[str]) -> int:
    """0 for the attention, 1 for the feed-forward part."""
    return int("mlp" in writers[0])


def refit_behind_plainly(module, norm, offset, inside, missing, weight, ridge) -> None:
    """A projection and the gain behind it: the weights with the norm's divisor as it was, then the gain; four times."""
    matrix, gain = module.weight.data.numpy(), norm.weight.data.numpy() + offset
    bias = 0 if module.bias is None else module.bias.data.numpy()
    epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
    root, width = np.sqrt(weight), inside.shape[1]

    def divisor(output):
        return np.sqrt((output**2).mean(1, keepdims=True) + epsilon)

    def added(matrix, gain):
        output = inside @ matrix.T + bias
        return gain * output / divisor(output)

    aimed = added(matrix, gain) + missing
    for _ in range(4):
        read = root * inside / divisor(inside @ matrix.T + bias)
        system = np.concatenate([read, np.sqrt(ridge * (read**2).sum(0).mean()) * np.eye(width)])
        wanted = np.concatenate([root * (aimed - added(matrix, gain)), np.zeros((width, len(gain)))])
        change, *_ = np.linalg.lstsq(system, wanted)
        tried = matrix + change.T / gain[:, None]
        normed = root * added(tried, 1.0)
        held = ridge * (normed**2).sum(0).mean()
        new = ((normed * root * aimed).sum(0) + held * gain) / ((normed**2).sum(0) + held)
        if not ((root * aimed - new * normed) ** 2).sum() < 0.999 * ((root * (aimed - added(matrix, gain))) ** 2).sum():
            break
        matrix, gain = tried, new
    module.weight.data, norm.weight.data = torch.from_numpy(matrix), torch.from_numpy(gain - offset)


@pytest.mark.parametrize(("name", "select"), CASES)
def test_a_fit_is_plain_least_squares(name, select):
    source, start = ordered(made(name), select)
    ours = fitted(source, start, BATCHES, ridge=0.3)
    theirs, family = start.load().double(), VARIANTS[name][0]
    parallel = family == "gpt_neox" and "serial" not in name
    refit_plainly(theirs, start.details["layer_map"], family, copy.deepcopy(source).double(), 0.3, parallel)
    expected, changed = theirs.state_dict(), 0
    before = dict(start.tensors())
    for tensor, value in ours.tensors():
        alias = tensor.replace("embed_out", "lm_head")
        torch.testing.assert_close(value, expected[alias].float(), rtol=1e-3, atol=1e-4)
        changed += not torch.equal(value, before[tensor])
    biases = {
        "gpt2": 2,
        "gpt2-inverse-untied": 2,
        "neox": 1,
        "neox-no-bias": 1,
        "neox-serial": 2,
        "neox-serial-no-bias": 1,
    }
    biases |= {"llama-biases": 2, "qwen3-bias": 1, "granite": 1}
    gains = 2 if family in BEHIND else 0
    assert changed == 2 * (2 + gains + biases.get(name, 0))
    assert ours.tied == start.tied and ours.parameters == start.parameters
    assert all(entry["after"] < entry["before"] for entry in ours.details["fitted"])


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_cut_changes_nothing(name):
    model = made(name)
    start = take_subset(Weights(model), Weights(model).sizes)
    result = fitted(model, start, BATCHES)
    assert distance(result.load(), model) < 1e-5
    assert (result.details["untouched"], result.details["fitted"]) == (4, [])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_layer_that_writes_nothing_is_not_missed(name):
    model = made(name)
    parts = MODULES.get(VARIANTS[name][0], LLAMA_MODULES)
    for part in parts[1:3]:
        for parameter in model.get_submodule(f"{parts[0].format(1)}.{part}").parameters():
            torch.nn.init.zeros_(parameter)
    weights = Weights(model)
    start = take_subset(weights, {**weights.sizes, "layer": 3}, layers=[0, 2, 3])
    result = fitted(model, start, BATCHES)
    assert result.details["untouched"] == 0 and len(result.details["fitted"]) in (3, 6)
    assert distance(result.load(), model) < 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_the_fit_adds_up_units_that_were_duplicates(name):
    """Unit 18 + i computes what unit i does, and both write: without it, unit i has to write for both."""
    model = made(name)
    weights = Weights(model)
    for tensor, spec in weights.family.tensors.items():
        if "ffn" in spec.names and spec.role != "write":
            for layer in range(4):
                filled = tensor.format(layer=layer)
                stored = model.get_parameter(weights.stored_names[filled]).data
                value = weights.part(filled, stored).movedim(spec.names.index("ffn"), 0)
                value[18:] = value[:6]
    start = take_subset(weights, {**weights.sizes, "ffn": 18})
    assert distance(start.load(), model) > 0.05
    result = fitted(model, start, BATCHES, ridge=1e-7)
    if VARIANTS[name][0] in BEHIND:  # found round by round
        assert distance(result.load(), model) < distance(start.load(), model) / 3
    else:
        assert distance(result.load(), model) < 1e-3


def test_leading_layers_that_were_not_cut_stay_and_the_rest_is_what_a_whole_walk_gives(monkeypatch):
    model = made("llama")
    weights = Weights(model)
    start = take_subset(weights, {**weights.sizes, "layer": 3}, layers=[0, 1, 3])
    result = fitted(model, start, BATCHES)
    assert result.details["untouched"] == 1
    monkeypatch.setattr("colpipe.learngene.fit._untouched", lambda *_: 0)
    whole = dict(fitted(model, start, BATCHES).tensors())
    for name, value in result.tensors():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["gpt2", "neox", "qwen3"])
def test_the_same_inputs_give_the_same_bytes(name, precision):
    source, start = ordered(made(name), "rank")
    one, other = (dict(fitted(source, start, BATCHES, precision=precision).tensors()) for _ in range(2))
    assert_same(one, other)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_fit_in_bfloat16_is_the_one_in_float32_but_for_rounding(name):
    source, start = ordered(made(name), "rank")
    exact, rounded = (fitted(source, start, BATCHES, precision=each) for each in ("float32", "bfloat16"))
    before, precise, ours = (dict(each.tensors()) for each in (start, exact, rounded))
    assert all(value.dtype == torch.float32 for value in ours.values())
    changed = [tensor for tensor in before if not torch.equal(precise[tensor], before[tensor])]
    assert [tensor for tensor in before if not torch.equal(ours[tensor], before[tensor])] == changed
    assert any(not torch.equal(ours[tensor], precise[tensor]) for tensor in changed)
    for tensor in changed:
        assert (ours[tensor] - precise[tensor]).norm() < 0.1 * (precise[tensor] - before[tensor]).norm(), tensor
    for one, other in zip(exact.details["fitted"], rounded.details["fitted"], strict=True):
        assert other["after"] == pytest.approx(one["after"], rel=0.03)
    assert (exact.details["precision"], rounded.details["precision"]) == ("float32", "bfloat16")


def test_what_was_not_cut_is_the_sources_in_bfloat16_too(monkeypatch):
    """Whole layers before a cut write what they wrote, to the last bit of bfloat16, so that nothing is made up for."""
    model = made("llama")
    weights = Weights(model)
    start = take_subset(weights, {**weights.sizes, "layer": 3}, layers=[0, 1, 3])
    monkeypatch.setattr("colpipe.learngene.fit._untouched", lambda *_: 0)
    first, *_ = fitted(model, start, BATCHES, precision="bfloat16").details["fitted"]
    assert (first["part"], first["before"], first["after"]) == ("attention", 0, 0)


@pytest.mark.parametrize(
    ("lacks", "precision", "told"), [(True, "bfloat16", 1), (True, "float32", 0), (False, "bfloat16", 0)]
)
def test_bfloat16_is_told_of_where_it_is_emulated(lacks, precision, told, monkeypatch, caplog):
    monkeypatch.setattr("colpipe.learngene.streams.lacks_bfloat16", lambda: lacks)
    model = made("llama")
    fitted(model, llama_cut(model), BATCHES, precision=precision)
    assert caplog.text.count("this CPU has no arithmetic in bfloat16: a fit in it takes tens of times as long") == told


def test_bfloat16_is_refused_where_a_device_has_none(monkeypatch):
    none = SimpleNamespace(is_bf16_supported=lambda: False, get_device_name=lambda: "an old card")
    monkeypatch.setattr("colpipe.jobs.device.backend", lambda device: none)
    model = made("llama")
    fitted(model, llama_cut(model), BATCHES)
    with pytest.raises(ColpipeError, match="bfloat16 is not supported by an old card; use float32"):
        fitted(model, llama_cut(model), BATCHES, precision="bfloat16")


def test_one_gather_serves_many_sizes_and_leaves_nothing_behind(tmp_path):
    model = made("llama")
    weights = Weights(model)
    with gather(model, iter(BATCHES), tmp_path) as streams:
        assert streams.tokens == 6 * 32 + 3
        for layers in ([0, 2], [0, 3], [1, 2, 3]):
            start = take_subset(weights, {**weights.sizes, "layer": len(layers)}, layers=layers)
            assert_same(dict(fit(start, streams).tensors()), dict(fitted(model, start, BATCHES).tensors()))
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in model.model.modules())


def test_a_cut_of_an_elastic_member_is_fitted_too():
    model = made("gpt2")
    weights = Weights(model)
    target = smaller(weights)
    member = ElasticMember(target, [0, 2], compensate=1.0)
    result = fitted(model, cut(weights, target, member), BATCHES)
    assert result.details["method"] == "fit" and result.details["layer_map"] == [0, 2]
    assert result.details["fitted"][0]["after"] < result.details["fitted"][0]["before"]


def test_details_say_how_it_was_fitted_and_few_tokens_are_said(caplog):
    model = made("llama")
    weights = Weights(model)
    start = take_subset(weights, {**weights.sizes, "layer": 2}, layers=[0, 3])
    details = fitted(model, start, BATCHES[:1], ridge=0.5).details
    assert {key: details[key] for key in ("method", "ridge", "tokens", "untouched")} == {
        "method": "fit",
        "ridge": 0.5,
        "tokens": 32,
        "untouched": 0,
    }
    assert [(entry["layer"], entry["part"]) for entry in details["fitted"]] == [
        *((0, "attention"), (0, "feed-forward"), (1, "attention"), (1, "feed-forward"))
    ]
    assert "rank_deficient" not in details and not caplog.records
    few = fitted(model, start, [torch.tensor([[1, 2, 3]])]).details
    assert few["rank_deficient"] == 24
    (record,) = caplog.records
    assert "3 tokens are fewer than the 24 inputs of a projection" in record.getMessage()


def test_a_singular_system_raises_its_ridge_and_says_so(caplog):
    model = made("llama")
    weights = Weights(model)
    start = take_subset(weights, {**weights.sizes, "layer": 2}, layers=[0, 3])
    result = fitted(model, start, [torch.tensor([[1, 2, 3]])], ridge=0)
    assert all(0 < entry["ridge"] <= 1e-3 for entry in result.details["fitted"])
    assert "the system is singular at a ridge of 0" in caplog.text
    assert all(value.isfinite().all() for _, value in result.tensors())


def test_weights_are_rounded_as_they_are_stored():
    model = made("llama").bfloat16()
    weights = Weights(model)
    start = take_subset(weights, {**weights.sizes, "layer": 2}, layers=[0, 3])
    result = fitted(model, start, BATCHES)
    assert all(value.dtype == torch.bfloat16 for _, value in result.tensors())
    assert all(entry["after"] < entry["before"] for entry in result.details["fitted"][:2])


def llama_cut(model, layers=(0, 3)):
    weights = Weights(model)
    return take_subset(weights, {**weights.sizes, "layer": len(layers)}, layers=list(layers))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no tokens to measure it on"),
        ([torch.zeros(0, 4, dtype=torch.long)], "no tokens to measure it on"),
        ([torch.tensor([[1, 50]])], "token id 50 is outside its vocabulary of 50"),
        ([torch.tensor([[1, -1]])], "token id -1 is outside its vocabulary of 50"),
        ([torch.ones(1, 17, dtype=torch.long)], "rows of 17 tokens, the model has 16 positions"),
        ([torch.tensor([1, 2])], r"a batch of shape \(2,\), int64"),
        ([torch.ones(1, 2)], r"a batch of shape \(1, 2\), float32"),
    ],
)
def test_what_a_model_cannot_be_run_on_is_refused(batches, message):
    model = made("llama")
    with pytest.raises(ColpipeError, match=message):
        fitted(model, llama_cut(model), batches)


def test_ids_outside_a_cropped_vocabulary_are_refused():
    model = made("llama")
    weights = Weights(model)
    start = take_subset(weights, {**weights.sizes, "vocabulary": 40, "layer": 3}, layers=[0, 1, 3])
    with pytest.raises(ColpipeError, match=r"the cut of .*: token id .* is outside its vocabulary of 40"):
        fitted(model, start, BATCHES)


def test_a_start_that_is_no_cut_of_the_model_is_refused(neighbours_of):
    model, other = made("llama"), made("llama", num_hidden_layers=5)
    changed = copy.deepcopy(model)
    changed.model.layers[2].mlp.up_proj.weight.data[0, 0] += 1
    neighbours = neighbours_of("llama", False)
    interpolated = linit(*neighbours.weights, neighbours.sizes(), 0.5)
    _, start = ordered(model, "rank")
    for cut_, message in (
        (llama_cut(other), "the start was cut from it, the streams are of .*, of another shape"),
        (llama_cut(changed), r"layers.2.mlp.up_proj.weight differs; gather from the model that is cut"),
        (start, "differs; gather from the model that is cut: where it is ranked or rotated, from that"),
        (interpolated, "only a subset of it can be fitted"),
    ):
        with pytest.raises(ColpipeError, match=message):
            fitted(model, cut_, BATCHES)


@pytest.mark.parametrize("ridge", [-0.1, float("nan"), float("inf")])
def test_a_ridge_below_0_or_without_end_is_refused(ridge):
    model = made("llama")
    with pytest.raises(ColpipeError, match=r"ridge .*: must be 0 or more, and finite"):
        fitted(model, llama_cut(model), BATCHES, ridge)


def test_activations_that_are_not_finite_are_refused(tmp_path):
    model = made("llama")
    model.model.layers[1].mlp.down_proj.weight.data[:] = 3e38
    with pytest.raises(ColpipeError, match="the residual stream before layer 2 is not finite"):
        gather(model, BATCHES, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [1e20, 1e30])
def test_activations_whose_squares_overflow_are_refused(value):
    """Though finite themselves."""
    model = made("llama")
    model.model.layers[3].mlp.down_proj.weight.data *= value
    with pytest.raises(ColpipeError, match=r"layer 1 \(the source's 3\), feed-forward: its activations are too large"):
        fitted(model, llama_cut(model), BATCHES)


def test_a_huge_ridge_changes_nothing():
    model = made("llama")
    start = llama_cut(model)
    assert_same(dict(fitted(model, start, BATCHES, ridge=1e308).tensors()), dict(start.tensors()))


@pytest.mark.parametrize("asked", [0, 3, 7, 20, 34])
def test_it_can_be_ended_before_any_batch_and_leaves_nothing_behind(tmp_path, asked):
    """7 batches of the source, 7 that enter the cut, and for each of its two layers 7 to fit the attention, 7 to fit the
    feed-forward part, and 7 to write what that changes."""
    model, calls = made("llama"), itertools.count()

    def end() -> None:
        if next(calls) == asked:
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        fitted(model, llama_cut(model), BATCHES, scratch=tmp_path, before_batch=end)
    assert next(calls) == asked + 1 and not list(tmp_path.iterdir())
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in model.model.modules())


def test_no_space_for_the_streams_is_said_before(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(ColpipeError, match="no space left for the residual streams"):
        gather(made("llama"), BATCHES, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("family", "said", "parallel"), [
    ("gpt_neox", True, True), ("gpt_neox", None, True), ("gpt_neox", False, False), ("llama", True, False),
    ("llama", None, False),
])  # fmt: skip
def test_parts_are_side_by_side_where_the_class_has_them_so(family, said, parallel, tmp_path):
    """Not where a file says so and the class does not read it: transformers runs such a Llama as any other."""
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "vocab_size": 32,
    }
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("use_parallel_residual", None)
    (tmp_path / "config.json").write_text(
        json.dumps(config | ({} if said is None else {"use_parallel_residual": said}))
    )
    assert is_parallel(Weights(tmp_path)) == parallel
