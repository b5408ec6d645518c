"""A guessed table as Python, to be read, corrected and pasted; and what it says otherwise than the table that is there."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from colpipe.architectures.family import Family, TensorSpec
from colpipe.tools.family_table.guess import Guess

WIDTH = 120
TABLE_DEFAULTS = {each.name: each.default for each in fields(TensorSpec)}
MORE = {  # what a table says only where it is not this
    "aliases": {},
    "fused": {},
    "per_layer": ("layer_types",),
    "scaled_embedding": False,
    "whole_heads": True,
    "renamed": {},
    "buffers": r"rotary_emb\.\w*inv_freq$",
}


def source(guess: Guess) -> str:
    """`NAME = Family(…)` and an entry of `SETTABLE`; what is to be checked below, as comments."""
    family = guess.family
    lines = [f"{family.name.upper().replace('-', '_')} = Family("]
    for key in ("name", "keys", "tensors", "defaults", "usual", "norm"):
        lines += _entry(f"{key}=", getattr(family, key), 1)
    for key, usual in MORE.items():
        if (value := getattr(family, key)) != usual:
            lines += _entry(f"{key}=", value, 1)
    lines += [")", "", "# in colpipe/architectures/settable.py"]
    lines += _entry(f'SETTABLE["{family.name}"] = ', guess.settable, 0, end="")
    return "\n".join([*lines, "", *(f"# check: {line}" for line in guess.checks)])


def _entry(start: str, value: Any, depth: int, end: str = ",") -> Iterator[str]:
    """Lines of one value, in one where they fit."""
    indent = "    " * depth
    line = f"{indent}{start}{_text(value)}{end}"
    nested = isinstance(value, Mapping) and (
        len(value) > 1 or any(isinstance(each, TensorSpec) for each in value.values())
    )
    if len(line) <= WIDTH and not (nested and depth == 1):
        yield line
    elif isinstance(value, Mapping):
        yield f"{indent}{start}{{"
        for key, each in value.items():
            yield from _entry(f"{_text(key)}: ", each, depth + 1)
        yield f"{indent}}}{end}"
    elif isinstance(value, list | tuple):
        left, right = "[]" if isinstance(value, list) else "()"
        yield f"{indent}{start}{left}"
        for each in value:
            yield from _entry("", each, depth + 1)
        yield f"{indent}{right}{end}"
    elif isinstance(value, TensorSpec):
        yield f"{indent}{start}TensorSpec("
        yield f"{indent}    {_arguments(value)}"
        yield f"{indent}){end}"
    else:
        yield line


def _text(value: Any) -> str:
    """A value as Python, with double quotes; expressions as raw strings."""
    if isinstance(value, str):
        return f'r"{value}"' if "\\" in value else f'"{value}"'
    if isinstance(value, TensorSpec):
        return f"TensorSpec({_arguments(value)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(key)}: {_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_text, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _arguments(tensor: TensorSpec) -> str:
    more = [
        f"{key}={_text(getattr(tensor, key))}"
        for key in ("after", "into", "when", "offset")
        if getattr(tensor, key) != TABLE_DEFAULTS[key]
    ]
    return ", ".join([_text(tensor.axes), _text(tensor.role), *more])


def _told(tensor: TensorSpec | None) -> str:
    return _text(tensor) if tensor else "no such tensor"


def differences(known: Family, guessed: Family) -> list[str]:
    """What a guess says otherwise than a table, a line each; `when` counts only for keys that the class has.

    `defaults`, `buffers` and `renamed` are left out: what a study starts from and what older files hold is a choice.
    """
    lines = []
    had, has = (
        {name: tensor for name, tensor in each.tensors.items() if tensor.when in {"", *each.biases}}
        for each in (known, guessed)
    )
    for name in dict.fromkeys([*had, *has]):
        if had.get(name) != has.get(name):
            one, other = _told(had.get(name)), _told(has.get(name))
            lines.append(f"{name}: the table has {one}, the guess {other}")
    for key in ("keys", "usual", "aliases", "fused"):
        one, other = getattr(known, key), getattr(guessed, key)
        for each in dict.fromkeys([*one, *other]):
            if one.get(each) != other.get(each):
                lines.append(f"{key}: {each}: the table has {one.get(each)!r}, the guess {other.get(each)!r}")
    for key in ("norm", "per_layer", "scaled_embedding", "whole_heads"):
        one, other = getattr(known, key), getattr(guessed, key)
        if (set(one) != set(other)) if key == "per_layer" else one != other:
            lines.append(f"{key}: the table has {one!r}, the guess {other!r}")
    return lines
