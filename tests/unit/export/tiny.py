"""Tiny models of every family with byte-level BPE tokenizers, as transformers folders, for the tests of this folder."""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from colpipe.hf.models import random_model

TEXTS = [
    "The old stone school by the river was built in 1874, and 2,048 people came.\n\n",
    "It's said that they'll sing; WE'RE sure he'd know.  Two  spaces,\tand\ta tab.\r\n",
    "naïve façade — “quotes” 日本語のテキスト 中文 한국어 🙂 x = {'a': [1, 2.5e-3]}; // c++ && ||\n",
] * 3
TRICKY = [
    "Hello world",
    " leading and trailing ",
    "2024-10-31 and 1234567 8 ½ Ⅷ ² ٣٤٥",
    "  two  spaces   three\t\ttabs\n\n\nnewlines \r\n x\n",
    "I'm you'll THEY'RE 'twas don'T",
    "naïve façade — “quotes” …",
    "日本語のテキスト、中文 한국어 हिन्दी ไทย",
    "emoji 🙂👩‍👩‍👧 🇩🇪",
    "a\u00a0b\u2003c\u200bd e\u0301",
    "x = {'a': [1, 2.5e-3]}; // c++ && || ~~ <b>",
    "<|im_start|>user\nhi <note>there<|im_end|>\n",
    "<|im_end|><|im_end|> a<|im_start|>",
    "\x01\x7f\x0b",
    " ",
    "\n",
]
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(digits: str) -> list:
    regex = Regex(CONTRACTIONS + digits + REST)
    return [
        pre_tokenizers.Split(regex, "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


# llama.cpp's name → the steps of tokenizer.json, as models on the Hub write them.
STEPS = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "llama-bpe": split(r"\p{N}{1,3}"),
    "qwen2": split(r"\p{N}"),
}


def make_tokenizer(steps: str | list = "gpt-2", size: int = 390, begins: bool = False, composed: bool = False, more=()):
    """A trained byte-level BPE tokenizer with ChatML's tokens, and one of a user.

    Args:
        steps: pre-tokenizers, or a name of `STEPS`.
        begins: whether a text gets bos before it.
        composed: whether characters are composed first (NFC).
        more: further tokens, not special.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=steps == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(STEPS[steps] if isinstance(steps, str) else steps)
    tokenizer.decoder = decoders.ByteLevel()
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("<note>", *more)])
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.token_to_id("<|im_start|>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


PREFIXED = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
NOT_PREFIXED = normalizers.Replace(" ", "▁")


RUNS = ["▁" * length for length in (2, 3, 4, 8)]


def longest_left_first(pairs, sign: int = -1):
    """Merges of runs of spaces behind all others, as conversions have them of one score; with 1, the shortest first."""
    runs = [(left, right) for left in ["▁", *RUNS] for right in ["▁", *RUNS] if left + right in RUNS]
    runs.sort(key=lambda pair: (sign * len(pair[0]), sign * len(pair[1])))
    return [*(pair for pair in pairs if pair not in runs), *runs]


def make_pieces(normalizer=NOT_PREFIXED, pre_tokenizer=None, merges=None, words=(), more=()):
    """A BPE tokenizer of characters with bytes as a fallback, with the merges that conversions of SentencePiece models have:
    all pairs that make a token, token by token.

    Args:
        merges: changes the list of them.
        words: further tokens of the vocabulary.
        more: further added tokens.
    """
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    special = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=special, show_progress=False)
    trained.train_from_iterator([*TEXTS[:2], "aaaa ==== ----     x"] * 3, trainer)  # other characters are bytes
    vocab = json.loads(trained.to_str())["model"]["vocab"]
    vocab |= {word: len(vocab) + place for place, word in enumerate(word for word in words if word not in vocab)}
    pairs = []
    for word in sorted(vocab, key=vocab.get)[len(special) :]:
        halves = [(word[:at], word[at:]) for at in range(1, len(word))]
        pairs += [(left, right) for left, right in reversed(halves) if left in vocab and right in vocab]
    pairs = merges(pairs) if merges else pairs
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(special[:3])
    tokenizer.add_tokens([AddedToken("<note>", normalized=False), *more])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        pad_token="<unk>",
    )


def with_word(tokenizer, word: str):
    """A tokenizer with a token in its vocabulary that no merge makes, instead of the user's."""
    steps = json.loads(tokenizer.backend_tokenizer.to_str())
    steps["added_tokens"] = [token for token in steps["added_tokens"] if token["special"]]
    steps["model"]["vocab"][word] = len(steps["model"]["vocab"])
    special = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token")}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(steps)), **special)


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LINEAR = {**ROPE, "rope_type": "linear", "factor": 2.0}
LLAMA3 = {
    **ROPE,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
COMMON = {"vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 128}
GROUPED = {**COMMON, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 96}
FULL, SLIDING = "full_attention", "sliding_attention"
WINDOWED = {**GROUPED, "sliding_window": 6, "query_pre_attn_scalar": 32}  # a window shorter than a prompt
# Each family, tied and untied, and what they may have beside.
CONFIGS = {
    "gpt2": {"vocab_size": 400, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 96},
    "gpt2-untied": {"vocab_size": 400, "n_embd": 64, "n_layer": 2, "n_head": 4, "tie_word_embeddings": False},
    "gpt_neox": {**COMMON, "num_attention_heads": 4, "intermediate_size": 96},
    "gpt_neox-sequential": {
        **COMMON,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "use_parallel_residual": False,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5},
    },
    "llama": {**GROUPED, "head_dim": 16, "tie_word_embeddings": True},
    "llama-biases": {
        **GROUPED,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {**ROPE, "rope_theta": 5e5},
    },
    "llama-linear": {**GROUPED, "rope_parameters": LINEAR},
    "llama-llama3": {**GROUPED, "rope_parameters": LLAMA3},
    "qwen2": {**GROUPED, "head_dim": 16, "tie_word_embeddings": True},
    "qwen2-untied": {**GROUPED, "head_dim": 16, "rms_norm_eps": 1e-5},
    "qwen3": {**GROUPED, "tie_word_embeddings": True},
    "qwen3-untied": {**GROUPED, "hidden_size": 96},
    "mistral": GROUPED,
    "mistral-llama3": {
        **GROUPED,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "sliding_window": None,
        "rope_parameters": LLAMA3,
    },
    "smollm3": {**GROUPED, "num_hidden_layers": 5},  # no rotary positions in the fourth
    "smollm3-untied": {
        **GROUPED,
        "head_dim": 16,
        "num_hidden_layers": 8,
        "tie_word_embeddings": False,
        "rope_parameters": LINEAR,
    },
    "granite": {
        **GROUPED,
        "attention_multiplier": 0.05,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "logits_scaling": 2.5,
    },
    "granite-biases": {
        **GROUPED,
        "head_dim": 16,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "rope_parameters": LINEAR,
    },
    "olmo2": {**GROUPED, "head_dim": 16},
    "olmo2-tied": {
        **GROUPED,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "rope_parameters": LINEAR,
    },
    "gemma3_text": {**WINDOWED, "num_hidden_layers": 7},  # full attention in the sixth
    "gemma3_text-third": {  # full attention in every third, each number another than llama.cpp takes by itself
        **WINDOWED,
        "num_hidden_layers": 7,
        "layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL, SLIDING],
        "rope_parameters": {
            SLIDING: {**ROPE, "rope_theta": 3e3},
            FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 2e5},
        },
        "query_pre_attn_scalar": 50,
        "tie_word_embeddings": False,
    },
    "phi3": {**GROUPED, "head_dim": 16},
    "phi3-partial": {
        **GROUPED,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5},
    },
    "phi3-longrope": {
        **{**GROUPED, "head_dim": 16, "max_position_embeddings": 1024},
        "original_max_position_embeddings": 256,  # llama.cpp's smallest context; with more, it takes the long factors
        "rope_parameters": {
            **{**ROPE, "rope_type": "longrope", "original_max_position_embeddings": 256},
            "short_factor": [1.0, 1.1, 1.3, 1.5, 1.8, 2.0, 2.5, 3.0],
            "long_factor": [1.0, 1.5, 2.0, 4.0, 6.0, 9.0, 12.0, 20.0],
        },
    },
}


def make_folder(folder: Path, name: str, tokenizer=None, seed: int = 0, **more) -> torch.nn.Module:
    """A model of `CONFIGS`, every tensor random and exact in F16, saved with a tokenizer as a transformers folder."""
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = {"model_type": name.partition("-")[0], **special, **CONFIGS[name], **more}
    model = random_model(config, seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Gains are about 1; Gemma 3 stores what they differ from it by.
            gain = parameter.dim() == 1 and key.endswith("weight") and config["model_type"] != "gemma3_text"
            parameter.copy_((torch.randn_like(parameter) * 0.15 + gain).half())
    model.save_pretrained(folder)
    (tokenizer or make_tokenizer()).save_pretrained(folder)
    return model.eval()
