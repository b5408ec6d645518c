"""What a study may say, for editors and for people.

python -m colpipe.config.reference schema      > workflow/schemas/study.schema.json
python -m colpipe.config.reference reference   prints the tables of config/README.md
"""

import ast
import json
import sys
from collections.abc import Iterator
from functools import cache
from inspect import cleandoc, getdoc, getsource
from itertools import pairwise
from textwrap import dedent
from typing import get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from colpipe.config.parts import Strict
from colpipe.config.study import Study


def schema_text() -> str:
    """JSON schema of a study, as committed."""
    _describe()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def reference_text() -> str:
    """A table of keys for every part of a study, in the order in which they are first mentioned."""
    _describe()
    return "\n".join(f"### `{path}`\n\n{getdoc(model)}\n\n{_table(model)}" for path, model in _parts())


@cache
def _describe() -> None:
    """Give every field the string below it as its description. Pydantic can do so itself (`use_attribute_docstrings`), but
    in every process that imports a study: 0.4 s of each job of the shared start."""
    models = [model for _, model in _parts()]
    for model in models:
        for owner in reversed(model.__mro__[: model.__mro__.index(Strict)]):
            [definition] = ast.parse(dedent(getsource(owner))).body
            assert isinstance(definition, ast.ClassDef)
            for key, below in pairwise(definition.body):
                match key, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        model.model_fields[name].description = cleandoc(text)
    for model in reversed(models):
        model.model_rebuild(force=True)


def _parts() -> Iterator[tuple[str, type[BaseModel]]]:
    """(key path, model) of a study and all that is inside it; each model once."""
    seen: set[type[BaseModel]] = set()
    waiting: list[tuple[str, type[BaseModel]]] = [("study file", Study)]
    while waiting:
        path, model = waiting.pop(0)
        if model in seen:
            continue
        seen.add(model)
        yield path, model
        prefix = "" if model is Study else f"{path}."
        for name, field in model.model_fields.items():
            many = ".<name>" if "dict[" in str(field.annotation) else ""
            waiting += [(f"{prefix}{name}{many}", inner) for inner in _models(field.annotation)]


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _table(model: type[BaseModel]) -> str:
    properties = model.model_json_schema().get("properties", {})
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if field.is_required():
            default = "required"
        elif field.default_factory or field.default is PydanticUndefined or isinstance(field.default, BaseModel):
            default = "see below"
        elif field.default == "":
            default = "left out"
        else:
            default = f"`{json.dumps(field.default, default=str)}`"
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{name}` | {_type(properties[name])} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _type(schema: dict) -> str:
    """A JSON schema type in words."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(option) for option in options)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return "mapping"
    if "prefixItems" in schema:
        return "list of " + _type(schema["prefixItems"][0])
    kind = {"object": "mapping", "array": "list", "string": "text"}.get(schema.get("type"), schema.get("type", "any"))
    if kind == "list" and "items" in schema:
        return f"list of {_type(schema['items'])}"
    if kind == "mapping" and isinstance(schema.get("additionalProperties"), dict):
        return "mapping of names"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    words = [f"{sign} {schema[key]:g}" for key, sign in limits.items() if key in schema]
    return " ".join([kind, *words])


if __name__ == "__main__":
    texts = {"schema": schema_text, "reference": reference_text}
    if sys.argv[1:] not in [[name] for name in texts]:
        raise SystemExit(__doc__)
    print(texts[sys.argv[1]](), end="")
