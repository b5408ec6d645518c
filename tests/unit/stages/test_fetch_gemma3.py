"""Gemma 3 out of a GGUF file: a tiny one is written as llama.cpp's converter does, fetched, and compared with its origin."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGUFWriter, RopeScalingType, TokenType
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

from colpipe.config.parts import Runtime, Source
from colpipe.errors import ColpipeError
from colpipe.jobs.job import Job, JobSpec
from colpipe.learngene.stored import read_config
from colpipe.stages.fetch_model import main
from tests.unit.export.llama_cpp import ask

SPECIAL = {
    "<pad>": TokenType.CONTROL,
    "<eos>": TokenType.CONTROL,
    "<bos>": TokenType.CONTROL,
    "<unk>": TokenType.UNKNOWN,
}
BYTES = {f"<0x{byte:02X}>": TokenType.BYTE for byte in range(256)}
# In the order in which they are merged. A run of spaces is stored with real ones.
WORDS = [
    "\n",
    "  ",
    "▁",
    *"adehlnorstuv",
    "er",
    "he",
    "▁t",
    "▁the",
    "▁r",
    "iv",
    "i",
    "▁ri",
    "ver",
    "▁river",
    "old",
    "lo",
    "ol",
]
TOKENS = {**SPECIAL, **BYTES, **dict.fromkeys(WORDS, TokenType.NORMAL), "  ": TokenType.USER_DEFINED}
PLAIN = {"head_dim": 32, "sliding_window": 4, "num_hidden_layers": 7}
LETTER = list(TOKENS).index("a")
IDS = [
    2,
    *(list(TOKENS).index(word) for word in ("▁the", "▁river", "▁", "i", "s", "▁", "old", "\n", "he", "a", "r", "d")),
]


def make(**more) -> Gemma3ForCausalLM:
    """Random weights, the gains too; queries are scaled by the size of the heads, as in all but the 27B."""
    config = Gemma3TextConfig(
        vocab_size=len(TOKENS), hidden_size=64, intermediate_size=96, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=128, query_pre_attn_scalar=32, bos_token_id=2, eos_token_id=1, pad_token_id=0, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def pack(model: Gemma3ForCausalLM, path, without=(), **said) -> None:
    """The file of a model, with what is said besides (`add_…` of the writer), and without some of its weights."""
    config = model.config
    writer = GGUFWriter(path, "gemma3")
    numbers = {
        "context_length": 128, "embedding_length": 64, "block_count": config.num_hidden_layers,
        "feed_forward_length": 96, "head_count": 2, "head_count_kv": 1, "layer_norm_rms_eps": 1e-6,
        "key_length": config.head_dim, "value_length": config.head_dim, "rope_freq_base": 1e6,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "unk_token_id": 3, "add_bos_token": True,
        "tokenizer_model": "llama", "tokenizer_pre": "default", "add_space_prefix": False,
    }  # fmt: skip
    for key, value in {**numbers, **said}.items():
        getattr(writer, f"add_{key}")(value)
    writer.add_token_list(list(TOKENS))
    writer.add_token_scores([-float(row) for row in range(len(TOKENS))])
    writer.add_token_types(list(TOKENS.values()))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name not in ("lm_head.weight", *without):  # the head is the embedding
            stored = value + 1 if "norm" in name else value
            writer.add_tensor(names.get_name(name, (".weight",)), stored.numpy().astype(np.float32))
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()


def fetch(tmp_path) -> None:
    settings = Source(path=str(tmp_path / "my.gguf"))
    with Job(JobSpec("fetch_model", tmp_path / "out", tmp_path / "work", settings, Runtime(), {}, 0)) as job:
        main(job)


CASES = {
    "plain": (PLAIN, {"sliding_window": 4}),
    "no windows": ({**PLAIN, "layer_types": ["full_attention"] * 7}, {}),
    "a pattern": ({**PLAIN, "_sliding_window_pattern": 3}, {"sliding_window": 4, "sliding_window_pattern": 3}),
    "larger models": (
        {
            **PLAIN,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
            },
        },
        {
            "sliding_window": 4,
            "rope_scaling_type": RopeScalingType.LINEAR,
            "rope_scaling_factor": 8.0,
            "rope_freq_base_swa": 5e3,
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_fetched_computes_what_its_origin_does(tmp_path, name):
    keys, said = CASES[name]
    model = make(**{key.removeprefix("_"): value for key, value in keys.items()})
    pack(model, tmp_path / "my.gguf", **said)
    fetch(tmp_path)
    assert read_config(tmp_path / "out")["model_type"] == "gemma3_text"
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected, logits = (each(torch.tensor([IDS])).logits for each in (model, found.eval()))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_computes_the_same_of_the_file(tmp_path, name):
    keys, said = CASES[name]
    pack(make(**keys), tmp_path / "my.gguf", **said)
    body = {"n_predict": 1, "n_probs": len(TOKENS), "temperature": 0, "logit_bias": [[LETTER, 1000]]}
    lengths = range(1, len(IDS) + 1, 4)
    texts = ["the  river\nis old", " the river", "naïve 🙂"]
    answers = ask(
        tmp_path / "my.gguf",
        *[("/completion", {**body, "prompt": IDS[:length], "cache_prompt": False}) for length in lengths],
        *[("/tokenize", {"content": text, "add_special": True}) for text in texts],
    )
    fetch(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    for length, answer in zip(lengths, answers, strict=False):
        (step,) = answer["completion_probabilities"]
        theirs = np.array([row["logprob"] for row in sorted(step["top_logprobs"], key=lambda row: row["id"])])
        with torch.no_grad():
            ours = model(torch.tensor([IDS[:length]])).logits[0, -1].log_softmax(-1).numpy()
        assert len(theirs) == len(TOKENS) and np.sqrt(((theirs - ours) ** 2).mean()) < 0.03
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text, answer in zip(texts, answers[len(lengths) :], strict=True):
        assert answer["tokens"] == tokenizer(text)["input_ids"], text


def test_weights_that_a_file_lacks_are_not_made_up(tmp_path):
    pack(make(**PLAIN), tmp_path / "my.gguf", ["model.layers.3.mlp.up_proj.weight"], sliding_window=4)
    with pytest.raises(ColpipeError, match=r"my.gguf: lacks weights of the model: model.layers.3.mlp.up_proj.weight$"):
        fetch(tmp_path)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"rope_scaling_type": RopeScalingType.YARN},
            "my.gguf: gemma3.rope.scaling.type 'yarn': known are none and linear",
        ),
        ({"sliding_window_pattern": [True] * 3}, "sliding_window_pattern has 3 values for 7 layers"),
        (
            {"attn_logit_softcapping": 50.0},
            "my.gguf: gemma3.attn_logit_softcapping 50.0: not known here, it may change",
        ),
    ],
)
def test_what_is_not_converted_is_refused(tmp_path, said, message):
    pack(make(**PLAIN), tmp_path / "my.gguf", sliding_window=4, **said)
    with pytest.raises(ColpipeError, match=message):
        fetch(tmp_path)
    assert not (tmp_path / "out" / "manifest.json").exists()
