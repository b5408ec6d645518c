"""A text is a text, even if it holds what looks like a special token."""

import pytest

from colpipe.data.encoding import begin_entry, begin_id, confused_ids, encode, encode_prompts
from colpipe.data.prompts import chat_prompt
from colpipe.errors import ColpipeError
from colpipe.hf.tokenizers import load_tokenizer
from tests.conftest import make_beginning_tokenizer, make_tokenizer, make_word_tokenizer
from tests.unit.data.test_words import ALONE, TOGETHER, texts

MERGED = [
    "no pattern",
    "other pattern",
    "metaspace",
]  # BPE whose merges made `</s>` of the texts that it was trained on
TOKENIZERS = {name: make for name, make in (ALONE | TOGETHER).items() if name not in MERGED}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_in_a_text_are_text(name):
    tokenizer = TOKENIZERS[name]()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    special = set(tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"]))
    given = ["a </s> b", "</s>", "x<|im_end|>y</s></s>"]
    found = encode(tokenizer, given)
    assert confused_ids(tokenizer) == []
    assert not special & {number for ids in found for number in ids}
    if name not in ("prefix", "normaliser"):  # which change texts anyway
        assert tokenizer.batch_decode(found) == given
    ordinary = [text for text in texts(50) if "</s>" not in text]
    assert encode(tokenizer, ordinary) == tokenizer(ordinary, add_special_tokens=False)["input_ids"]


def test_token_ids_stay_what_they_are():
    tokenizer = make_tokenizer(["a b"], 300)
    a, b = tokenizer(["a", "b"], add_special_tokens=False)["input_ids"]
    assert encode(tokenizer, ["a", [0, 7], "b", [0]]) == [a, [0, 7], b, [0]]
    assert encode(tokenizer, [[0, 7]]) == [[0, 7]] and encode(tokenizer, []) == []


@pytest.mark.parametrize("make", [make_word_tokenizer, *(TOGETHER[name] for name in MERGED)], ids=["words", *MERGED])
def test_a_tokenizer_that_makes_a_special_token_of_its_text_is_known(make):
    tokenizer = make()
    assert confused_ids(tokenizer) == [tokenizer.eos_token_id]


@pytest.mark.parametrize("end", [False, True])
def test_the_token_that_a_tokenizer_puts_before_a_text_is_put_before_prompts_once(end, tmp_path):
    """Not that behind it, nor what a text says; token ids that begin with it, as a chat template's, stay as they are."""
    make_beginning_tokenizer(["a b"], 300, end).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    begin, [plain] = tokenizer.convert_tokens_to_ids("<s>"), encode(tokenizer, ["<s> b"])
    assert begin_id(tokenizer) == begin and begin_entry(tokenizer) == {"begin": begin}
    assert tokenizer("a")["input_ids"][:1] == [begin] and begin not in plain
    given = ["<s> b", [begin, 7], [7], ""]
    assert encode_prompts(tokenizer, given) == [[begin, *plain], [begin, 7], [begin, 7], [begin]]
    assert encode_prompts(tokenizer, encode_prompts(tokenizer, given)) == encode_prompts(tokenizer, given)


@pytest.mark.parametrize("written", ["{{ bos_token }}", ""])
def test_a_chat_begins_once_whether_the_template_writes_it_or_not(written):
    tokenizer = make_beginning_tokenizer(["a b"], 300)
    tokenizer.chat_template = written + "{{ messages[0].content }}!"
    [ids] = encode_prompts(tokenizer, [chat_prompt(tokenizer, "a <s> b")])
    assert ids == [tokenizer.bos_token_id, *encode(tokenizer, ["a <s> b!"])[0]]


@pytest.mark.parametrize("make", [make_word_tokenizer, *ALONE.values(), *TOGETHER.values()])
def test_where_a_tokenizer_puts_nothing_prompts_are_what_they_were(make):
    tokenizer, given = make(), ["a b", " the", [0, 7], [7]]
    tokenizer.bos_token = tokenizer.eos_token  # there is one, as for GPT-2, but nobody puts it there
    assert begin_id(tokenizer) is None and begin_entry(tokenizer) == {}
    assert encode_prompts(tokenizer, given) == encode(tokenizer, given)


def test_two_tokens_before_a_text_are_refused():
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_beginning_tokenizer(["a"], 300)
    tokenizer.name_or_path = "glm"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> </s> $A", special_tokens=[("<s>", tokenizer.bos_token_id), ("</s>", 0)]
    )
    line = r"glm: its tokenizer makes \[65\] of 'a', and \[\d+, 0, 65\] with its special tokens; only one token before"
    with pytest.raises(ColpipeError, match=line):
        encode_prompts(tokenizer, ["a"])
