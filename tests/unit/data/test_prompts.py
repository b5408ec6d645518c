import pytest

from colpipe.data.prompts import chat_prompt, prompt
from colpipe.errors import ColpipeError
from tests.conftest import make_tokenizer


def test_the_papers_templates():
    assert prompt("Do it.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nDo it.\n\n### Response:\n"
    )
    assert prompt(" Do it. ", "With this.\n") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nDo it.\n\n### Input:\nWith this."
        "\n\n### Response:\n"
    )


def test_a_chat_template_holds_the_same_instruction_and_input():
    tokenizer = make_tokenizer(["a"], 260)
    with pytest.raises(ColpipeError, match="has no chat template; use `prompts: paper`"):
        chat_prompt(tokenizer, "Do it.")
    tokenizer.chat_template = (
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert chat_prompt(tokenizer, "Do it.", "With this.") == "<user>Do it.\n\nWith this.<assistant>"
    assert chat_prompt(tokenizer, "Do it.") == "<user>Do it.<assistant>"
