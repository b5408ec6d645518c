"""The paper's prompts as a chat template (no torch here)."""

from colpipe.data.prompts import WITH_INPUT, WITHOUT_INPUT


def chat_template() -> str:
    """The paper's prompts as a chat template: the last message is the instruction, and may have an `input` beside its
    `content`."""
    placeholders = {
        "instruction": "{{ messages[-1]['content'] | trim }}",
        "input": "{{ messages[-1]['input'] | trim }}",
    }
    with_input, without = WITH_INPUT.format(**placeholders), WITHOUT_INPUT.format(**placeholders)
    return f"{{% if messages[-1]['input'] %}}{with_input}{{% else %}}{without}{{% endif %}}"
