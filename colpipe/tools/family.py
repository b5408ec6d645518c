"""The axis table that a family of models would need, guessed from tiny random models of its class in transformers.

    colpipe family starcoder2                      # a model type that transformers has
    colpipe family models/starcoder2-3b            # or a model folder: its switches, such as qk_layernorm, count
    colpipe family gptj --set rotary_dim=8         # a key that belongs to the size of a tiny model

Prints Python: a `Family` for colpipe/architectures/families.py, what a study may set of it for settable.py there, and as
comments what has to be checked. Of a family that colpipe has it says what its table has otherwise. Downloads nothing.
docs/families.md says how a family is added.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from colpipe.architectures.families import TABLES
from colpipe.errors import ColpipeError
from colpipe.tools.parser import Parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("family", __doc__)
    parser.add_argument("model", metavar="MODEL", help="model folder, or a model type of transformers")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of config.json that all tiny models get, as YAML; several times for several",
    )
    given = parser.parse_args(arguments)
    print(page(given.model, dict(map(_pair, given.set))))


def page(model: str, said: dict[str, Any]) -> str:
    """What is printed of a model.

    Raises:
        ColpipeError: as in `guess`.
    """
    from colpipe.tools.family_table.guess import guess  # transformers takes seconds, spared those who only ask for help
    from colpipe.tools.family_table.source import differences, source

    found = guess(model, said)
    text = source(found)
    if known := TABLES.get(found.family.name):
        lines = differences(known, found.family)
        told = [f"# differs: {line}" for line in lines] or [f"# the table of {known.name} says the same"]
        text = "\n".join([text, *told])
    return text


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ColpipeError(f"--set {text!r}: give KEY=VALUE, as in --set rotary_dim=8")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ColpipeError(f"--set {text!r}: {value!r} is no value in YAML, such as 8, true or [1, 2]") from None
