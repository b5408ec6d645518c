"""Chat templates that give the token ids that a model was trained and scored on (no torch here)."""

import json

from transformers import PreTrainedTokenizerBase

from colpipe.data.encoding import begin_id, encode_prompts
from colpipe.data.prompts import TODAY, WITH_INPUT, WITHOUT_INPUT, chat_prompt, prompt
from colpipe.errors import ColpipeError

ASKED = {"instruction": "Name a city.", "input": "It is old."}


def chat_template() -> str:
    """The paper's prompts as a chat template, without a begin token: the last message is the instruction, and may have an
    `input` beside its `content`."""
    placeholders = {
        "instruction": "{{ messages[-1]['content'] | trim }}",
        "input": "{{ messages[-1]['input'] | trim }}",
    }
    with_input, without = WITH_INPUT.format(**placeholders), WITHOUT_INPUT.format(**placeholders)
    return f"{{% if messages[-1]['input'] %}}{with_input}{{% else %}}{without}{{% endif %}}"


def published_template(tokenizer: PreTrainedTokenizerBase, of_paper: bool) -> str | None:
    """The chat template that goes with a model: the paper's, or its tokenizer's own."""
    return paper_template(tokenizer) if of_paper else own_template(tokenizer)


def paper_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The same as `encode_prompts` reads these prompts with a tokenizer: behind its begin token, where it puts one.

    Raises:
        ColpipeError: as in `begin_id`, or no template gives these ids.
    """
    one, both = ({"content": ASKED["instruction"]}, {"content": ASKED["instruction"], "input": ASKED["input"]})
    expected = encode_prompts(tokenizer, [prompt(ASKED["instruction"]), prompt(**ASKED)])
    return _begun(tokenizer, chat_template(), [one, both], expected)


def own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A tokenizer's own chat template as `encode_prompts` reads what it writes: behind the begin token, where the tokenizer
    puts one that the template leaves out. None: it has no template, or several by name.

    Raises:
        ColpipeError: as in `paper_template`.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return None
    try:
        expected = encode_prompts(tokenizer, [chat_prompt(tokenizer, ASKED["instruction"])])
    except Exception:  # of whatever kind a template raises that takes no single message: nothing was asked with it
        return template
    return _begun(tokenizer, template, [{"content": ASKED["instruction"]}], expected)


def _begun(tokenizer: PreTrainedTokenizerBase, template: str, asked: list[dict], expected: list[list[int]]) -> str:
    """The template, with the begin token before it where that is needed for the expected ids of each message."""
    begin = begin_id(tokenizer)
    starts = [""]
    if begin is not None:
        text = tokenizer.convert_ids_to_tokens(begin)
        name = "bos_token" if text == tokenizer.bos_token else json.dumps(text, ensure_ascii=False)
        # Metaspace puts a space before what starts a text, and not before what follows a begin token in it
        starts += [f"{{{{ {name} }}}}", f"{{{{ {name} + ' ' }}}}"]
    today = TODAY * ("strftime_now" in template)  # as the prompts of training have it
    for start in starts:
        settings = {"add_generation_prompt": True, "return_dict": False, "chat_template": today + start + template}
        if expected == [tokenizer.apply_chat_template([{"role": "user", **each}], **settings) for each in asked]:
            return start + template
    raise ColpipeError(
        f"{tokenizer.name_or_path}: no chat template gives the ids that its models are trained on ({expected[0][:4]}…): "
        f"the text of token {begin} does not become that token; save it among the tokenizer's added tokens, as special"
    )
