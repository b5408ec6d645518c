"""The paper's two prompt templates (Appendix C.1): one source for training and evaluation."""

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
