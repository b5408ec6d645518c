"""Gemma 3, which stores and normalises otherwise than Llama, goes through all stages: elastic, fitted, recovered, scored."""

import json

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from colpipe.config.parts import Architecture, Shape
from tests.conftest import make_model, make_tokenizer, snakemake

pytestmark = pytest.mark.slow
WIDE = {"heads": 4, "kv_heads": 1, "head_dim": 8, "hidden": 64}
STUDY = {
    "study": "gemma",
    "models": {"ancestor": {"source": {"path": "ancestor"}}},
    "datasets": {"articles": {"source": {"path": "inputs/articles.json"}, "reader": "wikipedia-leads"}},
    "corpora": {"stories": {"dataset": "articles"}},
    "instructions": {"describe": {"dataset": "articles", "kinds": ["describe"], "max_tokens": 200, "test_rows": 4}},
    "ancestors": {"gemma": {"model": "ancestor"}},
    "chain": {
        "large": {"elastic": {"axes": ["layers", "ffn"]}, "shape": {**WIDE, "layers": 4, "ffn": 96}},
        "small": {"shape": {**WIDE, "layers": 2, "ffn": 64, "hidden": 32}},
    },
    "desnets": {"between": {"shape": {**WIDE, "layers": 3, "ffn": 64, "hidden": 32}}},
    "initialisers": {
        name: {"kind": "linit", "method": name, "budgets": [0]} for name in ("cut", "fit", "nested", "lossless")
    }
    | {"fit": {"kind": "linit", "method": "fit"}, "aligned": {"kind": "linit", "method": "aligned", "budgets": [0]}},
    "budgets": [0, 512],
    "tasks": {"describe": {"instructions": "describe", "max_new_tokens": 4, "fine_tune": None}},
    "perplexity": ["stories"],
    "stages": {
        "sft": None,
        "order": {"tokens": 512},
        "fit": {"tokens": 1024, "max_length": 64},
        "distill": {"steps": 2, "max_length": 64},
        "recover": {"corpus": "stories", "max_length": 64, "batch_size": 2},
    },
}


def test_a_gemma_goes_through_every_stage(tmp_path, inputs):
    (tmp_path / "inputs").symlink_to(inputs)
    texts = [article["extract"] for article in json.loads((inputs / "articles.json").read_text()).values()]
    tokenizer = make_tokenizer(texts, 400)
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    config = {"layer_types": kinds, "sliding_window": 16, "query_pre_attn_scalar": 8}
    chain = Architecture(family="gemma3_text", vocabulary=len(tokenizer), positions=256, tied=True, config=config)
    make_model(tmp_path / "ancestor", chain, Shape(**WIDE, layers=5, ffn=96), seed=1)
    tokenizer.save_pretrained(tmp_path / "ancestor")
    (tmp_path / "gemma.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    snakemake(tmp_path, "all", "--configfile", "gemma.yaml")
    results = tmp_path / "results/gemma"
    origins = range(5)
    for folder in ("chain/gemma/large", "chain/gemma/small"):
        layers = json.loads((results / folder / "manifest.json").read_text())["layer_map"]
        origins = [origins[layer] for layer in layers]
        written = json.loads((results / folder / "config.json").read_text())
        assert written["layer_types"] == [kinds[layer] for layer in origins]
    for path in sorted((results / "desnets/gemma/between").glob("*/*")):
        model = AutoModelForCausalLM.from_pretrained(path).eval()
        logits = model(torch.tensor([[1, 2, 3]])).logits
        assert logits.isfinite().all() and (type(model).__name__, logits.shape[-1]) == (
            "Gemma3ForCausalLM",
            len(tokenizer),
        )
    fitted = json.loads((results / "desnets/gemma/between/fit/0/manifest.json").read_text())["fitted"]
    assert all(each["after"] <= each["before"] for each in fitted) and len(fitted) == 6
