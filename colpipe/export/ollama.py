"""The Modelfile that Ollama makes a model of."""

import json
import re

from transformers import PreTrainedTokenizerBase

from colpipe.data.encoding import begin_token
from colpipe.data.prompts import WITHOUT_INPUT

LONGEST = 8192  # tokens that memory is taken for at once, of a model that could read more
CHATML = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
# The last message alone, as the paper's chat template has it.
LAST = "{{ range $i, $message := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}{{ .Content }}{{ end }}{{ end }}"
SYSTEM, ASKED, ANSWERED = (
    {"role": role, "content": f"Some {role}'s words."} for role in ("system", "user", "assistant")
)
CONVERSATIONS = ([ASKED], [SYSTEM, ASKED], [SYSTEM, ASKED, ANSWERED, {**ASKED, "content": "More."}])


def modelfile(
    gguf: str, tokenizer: PreTrainedTokenizerBase, template: str | None, ends: list[int], positions: int
) -> str:
    """The text of a Modelfile.

    Args:
        gguf: name of the file beside it.
        template: chat template, in Jinja.
        ends: ids that end a text.
        positions: tokens that the model can read.
    """
    lines = [f"FROM ./{gguf}", *_template(tokenizer, template)]
    lines += [f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in map(tokenizer.decode, ends)]
    if positions > LONGEST:
        lines.append(f"# The model reads up to {positions} tokens.")
    return "\n".join((*lines, f"PARAMETER num_ctx {min(positions, LONGEST)}", ""))


def _template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> list[str]:
    """Ollama's templates are Go's: a chat template is recognised by what it makes of conversations."""
    if not template:
        return ['TEMPLATE """{{ .Prompt }}"""']
    made = [_rendered(tokenizer, template, messages) for messages in CONVERSATIONS]
    if made == [WITHOUT_INPUT.format(instruction=messages[-1]["content"]) for messages in CONVERSATIONS]:
        return [f'TEMPLATE """{WITHOUT_INPUT.format(instruction=LAST)}"""']
    first, *others = [_chatml(messages) for messages in CONVERSATIONS]
    if made[1:] == others and made[0].endswith(first):
        if made[0] == first:
            return [f'TEMPLATE """{CHATML}"""']
        # Many put a system message of their own before a conversation without one.
        if own := re.fullmatch(r"<\|im_start\|>system\n(.*)<\|im_end\|>\n", made[0].removesuffix(first), re.DOTALL):
            return [f'TEMPLATE """{CHATML}"""', f'SYSTEM """{own[1]}"""']
    return ["# No TEMPLATE: the chat template in the .gguf is none that is known here; Ollama may know it."]


def _rendered(tokenizer: PreTrainedTokenizerBase, template: str, messages: list[dict]) -> str:
    """What a template makes of a conversation, without the begin token, which Ollama puts before it by itself."""
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except Exception:  # of whatever kind a template raises that takes no system message
        return ""
    return text.removeprefix(begin_token(tokenizer) or "")


def _chatml(messages: list[dict]) -> str:
    turns = "".join(f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in messages)
    return f"{turns}<|im_start|>assistant\n"
