"""A machine with torch and transformers alone: what stands in there for what colpipe needs besides.

pydantic: a class whose fields have their defaults. It refuses nothing, which the checks do not need: what they set is right.
transformers before 5.20: the names that colpipe uses, for those of that time.

Modules can be hidden as if they were not installed, to see here what runs there.
"""

import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

HIDDEN = "COLPIPE_GPU_CHECK_HIDES"  # in the environment of the processes of checks: names, with commas


class _Finder:
    """Python's own finder of modules, which does not find some."""

    def __init__(self, names: Iterable[str]):
        self.names = set(names)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)

    def find_distributions(self, context):
        named = (context.name or "").replace("-", "_")
        return () if named in self.names else importlib.machinery.PathFinder.find_distributions(context)

    def invalidate_caches(self) -> None:
        importlib.machinery.PathFinder.invalidate_caches()


def hide(names: Iterable[str]) -> None:
    """Have modules, and those in them, not be found, in this process and in those that it starts.

    Raises:
        ValueError: one is loaded already.
    """
    names = set(names)
    if loaded := sorted(names & set(sys.modules)):
        raise ValueError(f"{', '.join(loaded)}: loaded already, cannot be hidden")
    sys.meta_path[:] = [
        _Finder(names) if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path
    ]
    os.environ[HIDDEN] = ",".join(sorted(names))


def is_here(module: str) -> bool:
    """Whether a module is installed, and not hidden."""
    return importlib.util.find_spec(module) is not None


def lacking(modules: Iterable[str]) -> list[str]:
    """Those that are not here."""
    return [name for name in modules if not is_here(name)]


@contextmanager
def filled_in():
    """While it is open, colpipe can be imported though pydantic is not here, and transformers is of an earlier version."""
    _name_as_today()
    if is_here("pydantic"):
        yield
        return
    sys.modules["pydantic"] = _pydantic()
    try:
        yield
    finally:
        del sys.modules["pydantic"]  # other libraries look whether it is here


def _name_as_today() -> None:
    """transformers 5.20 calls gradient checkpointing activation checkpointing."""
    import dataclasses

    from transformers import PreTrainedModel, TrainingArguments

    if any(field.name == "activation_checkpointing" for field in dataclasses.fields(TrainingArguments)):
        return
    before = TrainingArguments.__init__

    def begin(self, *arguments, activation_checkpointing: bool = False, **named):
        before(self, *arguments, gradient_checkpointing=activation_checkpointing, **named)

    TrainingArguments.__init__ = begin
    PreTrainedModel.is_activation_checkpointing = property(lambda self: self.is_gradient_checkpointing)


# pydantic


def _pydantic() -> types.ModuleType:
    module = types.ModuleType("pydantic", __doc__)
    module.__spec__ = importlib.machinery.ModuleSpec("pydantic", None)
    for value in (BaseModel, Field, field_validator, model_validator):
        setattr(module, value.__name__, value)
    for name in ("AfterValidator", "BeforeValidator", "Discriminator", "Tag"):
        setattr(module, name, _Mark)
    refused = type("ValidationError", (ValueError,), {})
    module.__dict__.update(ConfigDict=dict, ValidationInfo=object, ValidationError=refused)
    return module


class _Mark:
    """Stands in annotations, where nothing looks at it."""

    def __init__(self, *_, **__):
        pass


class _Default(NamedTuple):
    value: Any
    is_left_out: Callable[[Any], bool]
    """of what is dumped, by its value"""


def Field(*, default: Any = ..., exclude: bool = False, exclude_if=lambda value: False, **_) -> _Default:
    return _Default(default, (lambda value: True) if exclude else exclude_if)


def field_validator(*_, **__):
    return lambda function: None


def model_validator(*, mode: str):
    """What a model does when its fields are set (`after`) is done, because it may fill some in."""

    def mark(function):
        if mode == "after":
            function.is_after = True
        return function

    return mark


class BaseModel:
    """Fields with defaults; a mapping becomes the model that its field is annotated with."""

    def __init__(self, **values: Any):
        hints = _fields(type(self))
        if unknown := set(values) - set(hints):
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        self.__dict__["model_fields_set"] = set(values)
        for name, hint in hints.items():
            setattr(self, name, _made(values[name], hint) if name in values else deepcopy(_default(type(self), name)))
        for name in dir(type(self)):
            after = getattr(type(self), name, None)
            if getattr(after, "is_after", False):
                after(self)

    @classmethod
    def model_construct(cls, **values: Any) -> "BaseModel":
        made = cls.__new__(cls)
        made.__dict__.update(
            {name: deepcopy(_default(cls, name)) for name in set(_fields(cls)) - set(values)}, **values
        )
        return made

    @classmethod
    def model_validate(cls, values: Mapping) -> "BaseModel":
        return cls(**values)

    def model_dump(self, **_) -> dict:
        found = {name: getattr(self, name) for name in _fields(type(self))}
        return {name: _plain(value) for name, value in found.items() if not _is_left_out(type(self), name, value)}


def _fields(model: type) -> dict[str, Any]:
    hints = get_type_hints(model)
    return {name: hint for name, hint in hints.items() if name not in ("model_config", "model_fields_set")}


def _is_left_out(model: type, name: str, value: Any) -> bool:
    own = getattr(model, name, None)
    return isinstance(own, _Default) and own.is_left_out(value)


def _default(model: type, name: str) -> Any:
    value = getattr(model, name, ...)
    value = value.value if isinstance(value, _Default) else value
    if value is ...:
        raise TypeError(f"{model.__name__}: {name} is missing")
    return value


def _made(value: Any, hint: Any) -> Any:
    """A mapping as the model that the hint names, lists and tuples as the hint has them; anything else as it is."""
    kinds = [hint, *get_args(hint)]
    model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    if model and isinstance(value, Mapping):
        return model(**value)
    return tuple(value) if get_origin(hint) is tuple and isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
