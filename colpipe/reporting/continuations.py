"""What models write: the texts that they continued, as cards and `colpipe show` have them (no torch here)."""

import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from colpipe.config.constants import SCRATCH

FILE = "continuations.json"
ORIGINS = ("bridges", "sft")  # folders of what chains descend from
WAYS = ("greedy", "sampled")
JOINERS = "\u200c\u200d"  # of scripts and emoji; all other characters that format text could hide or turn it around
Text = Mapping[str, str]  # prompt, greedy and sampled; or prompt and problem


class Written(NamedTuple):
    """What a model wrote.

    Attributes:
        path: of the model under the results.
        loss: mean held-out loss over the corpora, nats per token; infinite where it is scored on none.
        texts: its continuations, in the order of the study.
    """

    path: str
    loss: float
    texts: list[Text]

    @property
    def parts(self) -> tuple[str, ...]:
        """Kind, ancestor, name …: the folders of the path."""
        return Path(self.path).parts


def read_written(results: Path, paths: Iterable[str] | None = None) -> list[Written]:
    """Of some models of a study, by their paths, or of all whose scores are there; without those that continued nothing.

    Args:
        results: `results/<study>/`.
    """
    home = results / "scores"
    if paths is None:
        paths = sorted(path.parent.relative_to(home).as_posix() for path in home.rglob(FILE))
    wrote = [path for path in paths if (home / path / FILE).exists()]
    return [Written(path, _loss(home / path), read_texts(home / path)) for path in wrote]


def read_texts(scores: Path) -> list[Text]:
    """The continuations beside a model's scores, none where it continued nothing; characters that steer a terminal, or
    cannot be seen, are replaced."""
    try:
        texts = json.loads((scores / FILE).read_text())
    except FileNotFoundError:
        return []
    return [{key: seen(value) for key, value in text.items()} for text in texts]


def seen(text: str) -> str:
    """A text with nothing in it but characters that can be seen, blanks and line breaks; others are `�`."""
    lines = re.sub(r"\r\n?|[\u2028\u2029\v\f]", "\n", text).replace("\t", " ")
    return "".join(each if each.isprintable() or each in f"\n{JOINERS}" else "\ufffd" for each in lines)


def one_line(text: str) -> str:
    """A text in one line, its line breaks shown."""
    lines = [" ".join(line.split()) for line in text.strip().splitlines()]
    return " ⏎ ".join(filter(None, lines)) or "(nothing)"


def _loss(scores: Path) -> float:
    losses = [each["loss"] for each in json.loads((scores / "scores.json").read_text()).values() if "loss" in each]
    return sum(losses) / len(losses) if losses else math.inf


def block(own: Sequence[Text], others: Sequence[Text], other: str) -> str:
    """For a model card: what a model writes, and (where `others` are given) what another one makes of the same prompts, as a
    block of text that no character of it can end.

    Args:
        other: what to call that one.
    """
    beside, lines = {text["prompt"]: text for text in others}, []
    for text in own:
        lines += [f"{text['prompt']} …", ""]
        for name, each in (("this model", text), (other, beside.get(text["prompt"]))):
            if each and "problem" in each:
                lines += [f"{name}:", f"    not continued: {each['problem']}"]
            elif each:
                for way in WAYS:
                    lines += [f"{name}, {way}:", *_indented(one_line(each[way]))]
        lines.append("")
    content = "\n".join(lines).rstrip()
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"{fence}text\n{content}\n{fence}"


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="    ", subsequent_indent="    ")


def two_lines(results: Path, width: int) -> list[str]:
    """How the DesNet with the lowest held-out loss, and what its chain descends from, go on from the first beginning that
    both continue, a line each; none where nothing was continued. A random one only where there is no other. Of several
    models without a bridge that chains descend from, paths do not say which: none is shown then.

    Args:
        width: columns; what does not fit is cut, with an ellipsis.
    """
    written = read_written(results)
    desnets = [each for each in written if each.parts[0] == "desnets"]
    best = min(desnets, key=lambda each: (each.parts[1] == SCRATCH, each.loss), default=None)
    origins = [each for each in written if each.parts[0] in ORIGINS]
    if len(origins) > 1 and best:
        origins = [each for each in origins if each.parts == ("bridges", best.parts[1])]
    chosen = [*origins[:1], *([best] if best else [])]
    greedy = [{text["prompt"]: text["greedy"] for text in each.texts if "greedy" in text} for each in chosen]
    prompt = next((prompt for prompt in greedy[0] if all(prompt in each for each in greedy)), None) if greedy else None
    if prompt is None:
        return []
    names = [_name(each) for each in chosen]
    lines = [f'From "{one_line(prompt)}", greedily:']
    for name, texts in zip(names, greedy, strict=True):
        lines.append(_cut(f"    {name:<{max(map(len, names))}}  {one_line(texts[prompt])}", width))
    return lines


def _name(model: Written) -> str:
    if model.parts[0] != "desnets":
        return f"{model.parts[1]} ({'bridge' if model.parts[0] == 'bridges' else 'ancestor'})"
    _, _, desnet, init, budget = model.parts
    return f"{desnet} ({init}, {budget} tokens)"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 2].rstrip()} …"
