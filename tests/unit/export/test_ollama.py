"""Modelfiles: what Ollama is told of a model."""

import pytest

from colpipe.data.chat import chat_template, own_template, paper_template
from colpipe.data.prompts import WITHOUT_INPUT
from colpipe.export.ollama import CHATML as GO
from colpipe.export.ollama import modelfile
from tests.conftest import make_beginning_tokenizer
from tests.unit.export.tiny import CHATML, make_tokenizer

OWN_SYSTEM = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
LAST = "{{ range $i, $message := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}{{ .Content }}{{ end }}{{ end }}"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.mark.parametrize(
    ("template", "lines"),
    [
        (None, 'TEMPLATE """{{ .Prompt }}"""\n'),
        (CHATML, f'TEMPLATE """{GO}"""\n'),
        (OWN_SYSTEM, f'TEMPLATE """{GO}"""\nSYSTEM """Be kind."""\n'),
        (chat_template(), f'TEMPLATE """{WITHOUT_INPUT.format(instruction=LAST)}"""\n'),
        ("{{ raise_exception('no') }}", "# No TEMPLATE: the chat template in the .gguf is none that is known here;"),
        (CHATML.replace("assistant", "model"), "# No TEMPLATE: "),
    ],
    ids=["none", "ChatML", "own system message", "paper", "raises", "other"],
)
def test_a_template_is_recognised_by_what_it_makes(tokenizer, template, lines):
    text = modelfile("my-q8_0.gguf", tokenizer, template, [2, 0], 128)
    assert text.startswith(f"FROM ./my-q8_0.gguf\n{lines}")
    assert text.endswith('\nPARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\nPARAMETER num_ctx 128\n')


@pytest.mark.parametrize(
    ("own", "lines"),
    [(CHATML, f'TEMPLATE """{GO}"""\n'), (None, f'TEMPLATE """{WITHOUT_INPUT.format(instruction=LAST)}"""\n')],
    ids=["ChatML", "paper"],
)
def test_a_begin_token_that_a_template_writes_is_left_to_ollama(own, lines):
    tokenizer = make_beginning_tokenizer(["Be kind."], 300)
    tokenizer.chat_template = own
    template = own_template(tokenizer) if own else paper_template(tokenizer)
    assert template.startswith("{{ bos_token }}")
    assert modelfile("my-q8_0.gguf", tokenizer, template, [0], 128).startswith(f"FROM ./my-q8_0.gguf\n{lines}")


def test_memory_is_not_taken_for_more_than_is_usual(tokenizer):
    text = modelfile("my.gguf", tokenizer, None, [2], 131072)
    assert text.endswith("# The model reads up to 131072 tokens.\nPARAMETER num_ctx 8192\n")
