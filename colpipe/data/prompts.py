"""The paper's two prompt templates (Appendix C.1), and chat templates: one source for training and evaluation."""

from colpipe.errors import ColpipeError, first_line

TODAY = "{% macro strftime_now(form) %}26 Jul 2024{% endmacro %}"  # Llama 3.2's own day where it cannot ask
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def prompt(instruction: str, input: str = "") -> str:
    """The text that a model answers."""
    template = WITH_INPUT if input else WITHOUT_INPUT
    return template.format(instruction=instruction.strip(), input=input.strip())


def chat_prompt(tokenizer, instruction: str, input: str = "") -> list[int]:
    """Token ids of the same as a user's message in the tokenizer's chat template, up to where the model answers.

    The special tokens are those of the template; what looks like one in the message stays text. Templates that say which day
    it is (Llama 3.2) always say the same one, so that equal runs have equal prompts.

    Raises:
        ColpipeError: the tokenizer has no chat template, or cannot keep a special token's text as text.
    """
    if not tokenizer.chat_template:
        raise ColpipeError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; use `prompts: paper`")
    text = "\n\n".join(filter(None, (instruction.strip(), input.strip())))
    message = {"role": "user", "content": text}
    try:
        template = tokenizer.get_chat_template()
        return tokenizer.apply_chat_template(
            [message],
            add_generation_prompt=True,
            return_dict=False,
            sanitize_control_tokens=True,
            chat_template=TODAY * ("strftime_now" in template) + template,
        )
    except ValueError as error:
        raise ColpipeError(f"{tokenizer.name_or_path}: {first_line(error)}, of the message {text[:80]!r}") from None
