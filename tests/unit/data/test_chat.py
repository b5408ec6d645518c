"""A chat template gives the token ids that models are trained and scored on, whatever the tokenizer puts before a text."""

import pytest
from tokenizers import pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from colpipe.data.chat import own_template, paper_template
from colpipe.data.encoding import begin_id, encode_prompts
from colpipe.data.prompts import chat_prompt, prompt
from colpipe.errors import ColpipeError
from tests.conftest import make_beginning_tokenizer, make_tokenizer
from tests.unit.export.tiny import CHATML, NOT_PREFIXED, PREFIXED, make_pieces

MESSAGES = ({"content": " Name a city.\n"}, {"content": "Name the old city.", "input": "It is a stone.\n\nAnd {it}."})


def begins_with_bos(tokenizer):
    first = [(tokenizer.bos_token, tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{first[0][0]} $A", special_tokens=first)
    return tokenizer


def metaspace(scheme: str):
    return make_pieces(None, pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False))


BEGINNING = {
    "Llama 3": lambda: make_beginning_tokenizer(["the old stone"], 300),
    "Gemma": lambda: begins_with_bos(make_pieces(NOT_PREFIXED)),
    "Llama 2": lambda: begins_with_bos(make_pieces(PREFIXED)),
    "LlamaTokenizer": lambda: begins_with_bos(metaspace("first")),
    "LlamaTokenizer, legacy": lambda: begins_with_bos(metaspace("always")),
}
PLAIN = {
    "GPT-2": lambda: make_tokenizer(["the old stone"], 300),
    "pieces": lambda: make_pieces(PREFIXED),
    "metaspace": lambda: metaspace("first"),
}


def saved(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def ids(tokenizer, message: dict) -> list[int]:
    message = {"role": "user", **message}
    return tokenizer.apply_chat_template([message], add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize("name", BEGINNING | PLAIN)
def test_the_papers_template_gives_the_ids_of_training(name, tmp_path):
    tokenizer = (BEGINNING | PLAIN)[name]()
    begin = begin_id(tokenizer)
    assert (begin is not None) == (name in BEGINNING)
    tokenizer.chat_template = paper_template(tokenizer)
    tokenizer = saved(tokenizer, tmp_path)
    for message in MESSAGES:
        [expected] = encode_prompts(tokenizer, [prompt(message["content"], message.get("input", ""))])
        assert ids(tokenizer, message) == expected
        assert (expected[0] == begin, expected.count(begin)) == ((True, 1) if name in BEGINNING else (False, 0))


@pytest.mark.parametrize("written", ["{{ bos_token }}", ""], ids=["written", "left out"])
@pytest.mark.parametrize("name", BEGINNING | PLAIN)
def test_a_tokenizers_own_template_gives_the_ids_of_training(name, written, tmp_path):
    """Also one that trims what stands before its first tag."""
    tokenizer = (BEGINNING | PLAIN)[name]()
    tokenizer.chat_template = written + "{%- for each in messages %}Q: {{ each.content }}{% endfor %}\nA:"
    if name == "LlamaTokenizer" and not written:  # its models read a space before "Q", so that it has to be there
        assert tokenizer("Q")["input_ids"][1:] != tokenizer("<|im_start|>Q", add_special_tokens=False)["input_ids"][1:]
    expected = encode_prompts(tokenizer, [chat_prompt(tokenizer, "Name the old city.")])[0]
    before = tokenizer.chat_template
    tokenizer.chat_template = own_template(tokenizer)
    assert (tokenizer.chat_template == before) == (written != "" or name in PLAIN)
    tokenizer = saved(tokenizer, tmp_path)
    assert ids(tokenizer, {"content": "Name the old city."}) == expected
    assert expected.count(tokenizer.bos_token_id) == (name in BEGINNING or written != "")


def test_a_template_that_takes_no_single_message_stays_and_none_stays_none():
    tokenizer = make_beginning_tokenizer(["a b"], 300)
    assert own_template(tokenizer) is None
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert own_template(tokenizer) == tokenizer.chat_template
    tokenizer.chat_template = {"default": CHATML, "tools": CHATML}
    assert own_template(tokenizer) is None


def test_a_template_that_says_which_day_it_is_stays_one_that_does():
    tokenizer = make_beginning_tokenizer(["a b"], 300)
    tokenizer.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. {{ messages[0].content }}"
    assert own_template(tokenizer) == "{{ bos_token }}" + tokenizer.chat_template


def test_a_begin_token_that_no_text_becomes_is_refused():
    tokenizer = make_tokenizer(["a b"], 300)
    tokenizer.name_or_path = "odd"
    space = tokenizer.convert_tokens_to_ids("Ġ")  # a name: written out, it is another letter
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="Ġ $A", special_tokens=[("Ġ", space)])
    with pytest.raises(
        ColpipeError, match=r"odd: no chat template gives the ids .*; save it among the tokenizer's added"
    ):
        paper_template(tokenizer)
