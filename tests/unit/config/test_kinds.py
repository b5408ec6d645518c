"""Layers that differ in kind: what is refused, and told, before anything runs."""

import json
import re
from pathlib import Path

import pytest

from colpipe.config.loading import load_study, remarks
from colpipe.errors import ColpipeError
from colpipe.export.settings import require_known
from colpipe.hf.models import random_model
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.weights import Weights

FULL, SLIDING = "full_attention", "sliding_attention"
SIZES = {
    "vocab_size": 512, "max_position_embeddings": 128, "num_hidden_layers": 6, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 12, "hidden_size": 24, "intermediate_size": 64,
}  # fmt: skip
WIDTHS = {"heads": 2, "kv_heads": 1, "head_dim": 12, "hidden": 24, "ffn": 64}
FIT = {"corpus": "stories", "tokens": 1024, "max_length": 64}
GEMMA = {"layer_types": [SLIDING, SLIDING, FULL] * 2}


@pytest.fixture
def study(study, tmp_path, monkeypatch) -> dict:
    """The tiny study with an ancestor of six layers that is a folder here, and a chain of two, of 6 layers and 3."""
    monkeypatch.chdir(tmp_path)
    for name in ("inputs/llama", "inputs/boolq", "model"):
        Path(name).mkdir(parents=True)
    Path("inputs/articles.json").touch()
    study["tokenizer"] = {"model": "public"}
    study["models"] = {"public": {"source": {"path": "model"}}}
    study["ancestors"] = {"a": {"model": "public", "select": "first"}}
    study["chain"] = {
        "large": {"start": "inherit", "shape": {"layers": 6, **WIDTHS}},
        "small": {"start": "inherit", "shape": {"layers": 3, **WIDTHS}},
    }
    study["desnets"] = {"middle": {"shape": {"layers": 5, **WIDTHS}}}
    study["stages"]["order"] = {"corpus": "stories"}
    study["initialisers"] = {}
    return study


def of_family(study: dict, family: str, method: str, select: str = "first", **config) -> dict:
    Path("model/config.json").write_text(json.dumps({"model_type": family, **SIZES, **config}))
    study["architecture"] = {"family": family, "vocabulary": 512, "positions": 128, "align": 1}
    study["ancestors"]["a"]["select"] = select
    study["initialisers"] = {"mixed": {"kind": "linit", "method": method}}
    return study


def refused(study: dict) -> str:
    with pytest.raises(ColpipeError) as error:
        load_study(study, "my.yaml")
    return str(error.value)


CASES = {  # family, settings, select → what is said of it; None: nothing
    "repeated": ("gemma3_text", GEMMA, "first", "layer 2 of small with layer 4 of large (desnets.middle), which are "
                 "full_attention and sliding_attention (layer_types)"),
    "spread": ("gemma3_text", GEMMA, "even", "layer 1 of small with layer 1 of large (desnets.middle), which are "
               "full_attention and sliding_attention (layer_types)"),
    "no windows": ("gemma3_text", {"layer_types": [FULL] * 6}, "even", None),
    "no positions": ("smollm3", {"no_rope_layers": [1, 1, 0] * 2}, "first", "layer 2 of small with layer 4 of large "
                     "(desnets.middle), which are full_attention, 0 and full_attention, 1 (layer_types and no_rope_layers)"),
    "a luck": ("smollm3", {"no_rope_layers": [0, 1, 1, 1, 1, 1]}, "first", None),
    "older": ("gemma3_text", {"sliding_window_pattern": 3}, "first", "layer 2 of small with layer 4 of large"),
    "qwen": ("qwen3", {"use_sliding_window": True, "max_window_layers": 2}, "even", "layer 1 of small with layer 1"),
    "plain": ("qwen3", {}, "even", None),
    "llama": ("llama", {}, "even", None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_papers_mixture_is_refused_where_assembly_would_refuse_it(study, name):
    family, config, select, said = CASES[name]
    written = of_family(study, family, "paper", select, **config)
    found = refused(written) if said else load_study(written) and ""
    if said:
        assert found.startswith("my.yaml: initialisers.mixed.method: 'paper' mixes ") and said in found
        assert found.endswith("; give nested, which mixes a layer with the one that it came from, or fit")
        assert "\n" not in found
    whole = random_model({"model_type": family, **SIZES, **config, "pad_token_id": None}, 0)
    sizes = Weights(whole).sizes
    small = Weights(take_subset(Weights(whole), {**sizes, "layer": 3}, select).load())
    try:
        linit(small, Weights(whole), {**sizes, "layer": 5}, 0.5, "paper")
        at_assembly = ""
    except ColpipeError as error:
        at_assembly = str(error)
    assert bool(at_assembly) == bool(said)
    if said:
        (one, other) = re.search(r"layer (\d) of small with layer (\d)", found).groups()
        assert f"for layer {one} of " in at_assembly and f"for layer {other} of " in at_assembly


@pytest.mark.parametrize(("family", "config"), [("gemma3_text", GEMMA), ("smollm3", {})])
def test_a_ranking_that_decides_which_layers_are_mixed_is_refused(study, family, config):
    found = refused(of_family(study, family, "paper", "rank", **config))
    assert "which of them small keeps is not known before it is made; give nested" in found
    Path("model/config.json").unlink()  # to be fetched
    assert "which of them small keeps is not known before it is made; give nested" in refused(study)
    assert load_study(of_family(study, family, "paper", "rank", layer_types=[FULL] * 6, no_rope_layers=[1] * 6))


@pytest.mark.parametrize("select", ["rank", "even", "first"])
def test_nested_neighbours_mix_a_layer_with_the_one_that_it_came_from(study, select):
    assert load_study(of_family(study, "gemma3_text", "nested", select, **GEMMA))
    study["ancestors"]["a"]["teacher"] = "ancestor"  # small is none of large's, whose layers are then matched evenly
    if select == "rank":
        assert refused(study).endswith("which of them small keeps is not known before it is made; give fit")
    elif select == "first":
        assert "'nested' mixes layer 1 of small with layer 2 of large" in refused(study)


EXPORTED = [
    ("gemma3_text", GEMMA, "first", ""),
    (
        "gemma3_text",
        GEMMA,
        "even",
        "desnets.middle (mixed) has no GGUF file; of gemma3_text, llama.cpp has sliding windows",
    ),
    (
        "gemma3_text",
        GEMMA,
        "rank",
        "desnets.middle (mixed) may have no GGUF file: which layers it has is not known before",
    ),
    ("smollm3", {}, "first", ""),
    (
        "smollm3",
        {},
        "even",
        "desnets.middle (mixed) has no GGUF file; of smollm3, llama.cpp has no rotary positions in",
    ),
    ("smollm3", {"no_rope_layers": [1] * 6}, "rank", "desnets.middle (mixed) has no GGUF file"),
    ("llama", {}, "rank", ""),
]


@pytest.mark.parametrize(("family", "config", "select", "said"), EXPORTED)
def test_cuts_that_llama_cpp_does_not_take_are_told_where_files_are_asked_for(study, family, config, select, said):
    loaded = load_study(of_family(study, family, "fit", select, **config) | {"stages": {**study["stages"], "fit": FIT}})
    assert not [line for line in remarks(loaded) if "GGUF" in line]
    study["stages"] |= {"export": {"types": ["f16"]}, "fit": FIT}
    lines = [line for line in remarks(load_study(study)) if "GGUF" in line]
    assert len(lines) == bool(said) and all(line.startswith(f"stages.export: {said}") for line in lines)
    if select != "rank":  # as the export has it
        whole = random_model({"model_type": family, **SIZES, **config, "pad_token_id": None}, 0)
        weights = Weights(whole)
        cut = take_subset(weights, {**weights.sizes, "layer": 5}, select).load()
        try:
            require_known(weights.family, cut.config.to_dict(), "cut")
        except ColpipeError:
            assert said
        else:
            assert not said
