"""Real llama.cpp on what was written: the same ids of a text, the same probabilities, the same greedy text."""

import random
import subprocess

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing

from colpipe.data.chat import chat_template, own_template, paper_template
from colpipe.export import llama_cpp
from colpipe.export.files import write_gguf, write_gguf_files
from tests.unit.export.llama_cpp import ask
from tests.unit.export.tiny import (
    CHATML,
    CONFIGS,
    PREFIXED,
    RUNS,
    STEPS,
    TRICKY,
    longest_left_first,
    make_folder,
    make_pieces,
    make_tokenizer,
    with_word,
)

PROMPTS = ([5, 80, 200, 17], [300, 301, 9, 9, 9, 120, 44, 45, 46, 47, 350, 12, 13, 14, 15, 16, 90, 91, 92, 93])
NEW, ROWS, LETTER = 12, 400, 40  # tokens to generate, tokens there are, one of them that is a letter
# Difference between log-probabilities in nats, root mean square: twice what was measured. llama.cpp multiplies in F16, or
# quantises what quantised weights are multiplied with.
NEAR = {"f16": 0.01, "q8_0": 0.15, "q4_0": 1.2}


def probabilities(ids: list[int]) -> tuple[str, dict]:
    """Of every token after these; the server gives none beside half a character, so that a letter has to be the next."""
    body = {"prompt": ids, "n_predict": 1, "n_probs": ROWS, "temperature": 0, "logit_bias": [[LETTER, 1000]]}
    return "/completion", {**body, "cache_prompt": False}


def greedy(ids: list[int]) -> tuple[str, dict]:
    body = {"prompt": ids, "n_predict": NEW, "temperature": 0, "return_tokens": True, "ignore_eos": True}
    return "/completion", {**body, "cache_prompt": False}


@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_computes_what_transformers_does(name, tmp_path):
    model = make_folder(tmp_path / "model", name)
    paths = {type: tmp_path / f"{type}.gguf" for type in NEAR}
    write_gguf_files(tmp_path / "model", paths)
    prefixes = [prompt[:length] for prompt in PROMPTS for length in range(1, len(prompt) + 1, 4)]
    for type, path in paths.items():
        answers = ask(path, *map(probabilities, prefixes), *map(greedy, PROMPTS))
        for prefix, answer in zip(prefixes, answers, strict=False):
            assert distance(model, prefix, answer) < NEAR[type], type
        for prompt, answer in zip(PROMPTS, answers[len(prefixes) :], strict=True):
            if type == "f16":
                assert answer["tokens"] == chosen(model, prompt, answer["tokens"])


def distance(model, prefix: list[int], answer: dict) -> float:
    """Of the log-probabilities of the next token, root mean square."""
    (step,) = answer["completion_probabilities"]
    theirs = np.array([row["logprob"] for row in sorted(step["top_logprobs"], key=lambda row: row["id"])])
    off = theirs - log_probabilities(model, prefix)[-1]
    assert len(off) == ROWS
    return np.sqrt((off**2).mean())


def log_probabilities(model, ids: list[int]) -> np.ndarray:
    """(tokens, vocabulary)"""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()


def chosen(model, prompt: list[int], theirs: list[int]) -> list[int]:
    """Greedy tokens; of two that are as probable within the rounding, theirs."""
    ids = list(prompt)
    for their in theirs:
        row = log_probabilities(model, ids)[-1]
        row[[0, model.config.eos_token_id]] = -np.inf  # ends of a text, <|endoftext|> by its name
        ids.append(their if row.max() - row[their] < 0.03 else int(row.argmax()))
    return ids[len(prompt) :]


LONG = [11 + 37 * place % 379 for place in range(45)]


def test_texts_beyond_what_longrope_starts_from(tmp_path):
    """Whose frequencies transformers takes from the length of a text, and llama.cpp from that of its context."""
    rope = {**CONFIGS["phi3-longrope"]["rope_parameters"], "original_max_position_embeddings": 32}
    model = make_folder(tmp_path / "model", "phi3-longrope", rope_parameters=rope, original_max_position_embeddings=32)
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "f16")
    said = "LongRoPE: with a context of more than 32 tokens, llama.cpp takes long_factor for short texts too"
    assert said in exported.notes
    short, *long = ask(exported.path, *(probabilities(LONG[:length]) for length in (30, 36, 45)))
    assert all(
        distance(model, LONG[:length], answer) < NEAR["f16"] for length, answer in zip((36, 45), long, strict=True)
    )
    assert distance(model, LONG[:30], short) > 0.1  # what the note is about


def test_gemma_3_of_62_layers(tmp_path):
    """In which llama.cpp divides scores by the root of another number than elsewhere."""
    model = make_folder(tmp_path / "model", "gemma3_text", num_hidden_layers=62, query_pre_attn_scalar=24)
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "f16")
    for prompt, answer in zip(PROMPTS, ask(exported.path, *map(probabilities, PROMPTS)), strict=True):
        assert distance(model, prompt, answer) < NEAR["f16"]


TOKENIZERS = {
    **{name: {"steps": name} for name in STEPS},
    "begins with bos": {"begins": True},
    # Pythia's: characters are composed, and runs of spaces are tokens.
    "gpt_neox": {"composed": True, "more": ["        ", "    ", "  "]},
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_reads_text_as_the_tokenizer_does(name, tmp_path):
    tokenizer = make_tokenizer(**TOKENIZERS[name])
    make_folder(tmp_path / "model", "llama", tokenizer)
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "q8_0")
    # What llama.cpp leaves as it is: the one difference that is said.
    texts = [text for text in TRICKY if "e\u0301" not in text or name != "gpt_neox"]
    assert ("llama.cpp does not compose characters (NFC) as the tokenizer does" in exported.notes) == (
        name == "gpt_neox"
    )
    asked = [("/tokenize", {"content": text, "add_special": True, "parse_special": True}) for text in texts]
    for text, answer in zip(texts, ask(exported.path, *asked), strict=True):
        assert answer["tokens"] == tokenizer(text)["input_ids"], text


PIECES = {
    "as Gemma": {"pre_tokenizer": Split(" ", "merged_with_previous"), "more": [AddedToken("▁▁", normalized=False)]},
    "as Llama 2": {"normalizer": PREFIXED},
    "as Mistral": {"normalizer": PREFIXED, "merges": longest_left_first, "words": RUNS},
}


@pytest.mark.parametrize("name", PIECES)
def test_llama_cpp_reads_text_as_sentencepieces_bpe_does(name, tmp_path):
    tokenizer = make_pieces(**PIECES[name])
    make_folder(tmp_path / "model", "gemma3_text", tokenizer, vocab_size=len(tokenizer))
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "q8_0")
    dice = random.Random(0)
    drawn = ["".join(dice.choices("aeth  in==--\n.0ßé日🙂w", k=dice.randint(1, 24))) for _ in range(200)]
    texts = [*TRICKY, *drawn, *(f"x{' ' * length}y" for length in range(1, 34))]
    asked = [("/tokenize", {"content": text, "add_special": True, "parse_special": True}) for text in texts]
    for text, answer in zip(texts, ask(exported.path, *asked), strict=True):
        assert answer["tokens"] == tokenizer(text)["input_ids"], text


def test_llama_cpp_writes_spaces_as_they_are(tmp_path):
    """Also those of a token that is an added one."""
    tokenizer = make_pieces(more=[AddedToken("▁▁", normalized=False)])
    make_folder(tmp_path / "model", "llama", tokenizer, vocab_size=len(tokenizer))
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "q8_0")
    text = "It's   said 日 x"
    (answer,) = ask(exported.path, ("/detokenize", {"tokens": tokenizer(text)["input_ids"]}))
    assert answer["content"] == text == tokenizer.decode(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("name", ["my-Phi-3", "phi3"])
def test_names_that_llama_cpp_reads_something_into(name, tmp_path):
    """In models of such names it drops the space behind special tokens, and loads none without a token <unk>."""
    tokenizer = make_tokenizer()
    make_folder(tmp_path / "model", "phi3", tokenizer)
    exported = write_gguf(tmp_path / "model", tmp_path / f"{name}-f16.gguf", "f16")
    text = "<|im_start|>  a<note>  b"
    (answer,) = ask(exported.path, ("/tokenize", {"content": text, "add_special": True, "parse_special": True}))
    assert answer["tokens"] == tokenizer(text)["input_ids"]


def test_words_that_merges_do_not_make(tmp_path):
    """Llama 3's vocabulary has some: a word that is a token is taken whole."""
    tokenizer = with_word(make_tokenizer("llama-bpe"), "Ġqwxz")
    make_folder(tmp_path / "model", "llama", tokenizer)
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "q8_0")
    (answer,) = ask(exported.path, ("/tokenize", {"content": "a qwxz b", "add_special": True}))
    assert answer["tokens"] == tokenizer("a qwxz b")["input_ids"] and len(answer["tokens"]) == 3


@pytest.mark.parametrize("template", [CHATML, chat_template()], ids=["ChatML", "paper"])
def test_llama_cpp_has_the_chat_template(template, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    make_folder(tmp_path / "model", "llama", tokenizer)
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "q8_0")
    asked = [{"role": "user", "content": "Name a city."}]
    more = [*asked, {"role": "assistant", "content": "Rome."}, {"role": "user", "content": " Another.\n"}]
    requests = [("/apply-template", {"messages": messages}) for messages in (asked, more)]
    for messages, answer in zip((asked, more), ask(exported.path, *requests), strict=True):
        expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert answer["prompt"] == expected


def test_a_server_that_hangs_is_started_again_once(monkeypatch, tmp_path):
    given = []

    def hang(*_, timeout, **__):
        given.append(timeout)
        if len(given) == 1 or tmp_path.joinpath("always").exists():
            raise subprocess.TimeoutExpired("llama.cpp", timeout)
        return subprocess.CompletedProcess([], 0, "[1]", "")

    monkeypatch.setattr(llama_cpp.subprocess, "run", hang)
    assert llama_cpp.ask(tmp_path / "my.gguf", []) == [1] and given == [120, 600]
    (tmp_path / "always").touch()
    with pytest.raises(llama_cpp.LlamaCppError, match="no answer within 600 seconds"):
        llama_cpp.ask(tmp_path / "my.gguf", [])


@pytest.mark.parametrize("own", [True, False], ids=["own", "paper"])
@pytest.mark.parametrize("make", [lambda: make_tokenizer(begins=True), make_pieces, lambda: make_pieces(PREFIXED)])
def test_llama_cpp_reads_a_chat_as_it_was_trained_on(make, own, tmp_path):
    """With the begin token once, which the template writes and llama.cpp puts there too."""
    tokenizer = make()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{% for each in messages %}Q: {{ each['content'] }}\n{% endfor %}A:" if own else None
    tokenizer.chat_template = own_template(tokenizer) if own else paper_template(tokenizer)
    make_folder(tmp_path / "model", "llama", tokenizer, vocab_size=max(400, len(tokenizer)))
    exported = write_gguf(tmp_path / "model", tmp_path / "my.gguf", "q8_0")
    messages = [{"role": "user", "content": "It's said."}]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert expected[0] == tokenizer.bos_token_id and expected.count(tokenizer.bos_token_id) == 1
    (written,) = ask(exported.path, ("/apply-template", {"messages": messages}))
    read = ("/tokenize", {"content": written["prompt"], "add_special": True, "parse_special": True})
    chat = ("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    tokenised, answered = ask(exported.path, read, chat)
    assert tokenised["tokens"] == expected and answered["usage"]["prompt_tokens"] == len(expected)
