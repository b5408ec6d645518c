"""Versions of code: a changed line reruns the stages that run it (no torch here).

A version covers a module and every colpipe module that it imports, and theirs. Formatting, comments and docstrings do not
count: syntax trees are compared, so a rerun is always about behaviour. A module that moves results about without shaping
them says so with `AFFECTS_RESULTS = False`, and does not count either.

Imports are followed module by module. A name that a package re-exports in its `__init__.py` would escape, so no package
re-exports any (tests/unit/test_rooms.py).
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from colpipe.config.parts import reader_module
from colpipe.hashing import key_of

AFFECTS_RESULTS = False


@cache
def code_version(module: str) -> str:
    """16 hex digits for the code that a module runs, templates included."""
    trees: dict[str, str] = {}
    _collect_code(module, trees)
    return key_of(trees)


def code_of(module: str, settings: Any) -> str:
    """16 hex digits for all code of a job: its module's, and that of readers named in its settings (a JSON value)."""
    return key_of(
        [code_version(module), *(code_version(reader_module(reader)) for reader in sorted(_readers(settings)))]
    )


def _readers(settings: Any) -> set[str]:
    """Every value of a key `reader` anywhere in settings: readers are imported by name, which no import statement shows."""
    if isinstance(settings, list):
        return set().union(*map(_readers, settings))
    if not isinstance(settings, dict):
        return set()
    named = settings.get("reader")
    return ({named} if isinstance(named, str) else set()).union(*map(_readers, settings.values()))


def affects_results(tree: ast.Module) -> bool:
    """Whether a module counts: one that does not says `AFFECTS_RESULTS = False`."""
    return not any(
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "AFFECTS_RESULTS"
        and isinstance(node.value, ast.Constant)
        and node.value.value is False
        for node in tree.body
    )


def _collect_code(module: str, trees: dict[str, str]) -> None:
    package = Path(__file__).parents[1]
    path = package.joinpath(*module.split(".")[1:]).with_suffix(".py")
    if module in trees or not path.is_file():
        return
    counted = _what_counts(path.read_text())
    if counted is None:
        return
    text, imports = counted
    # its templates, which lie beside it under its name: page.py has page.html.j2. Of a table (paper.yaml) a stage is told in
    # its settings, so that a changed row makes only what shows it again.
    files = (other for other in path.parent.glob(f"{path.stem}.*") if other.suffix not in (".py", ".yaml"))
    beside = {other.name: other.read_text() for other in files}
    trees[module] = key_of([text, beside]) if beside else text
    for imported in imports:
        _collect_code(imported, trees)


@cache  # most stages share most modules
def _what_counts(text: str) -> tuple[str, list[str]] | None:
    """The syntax that a run executes, and the imports from colpipe; None for a module that does not count."""
    tree = ast.parse(text)
    if not affects_results(tree):
        return None
    tree.body = [node for node in tree.body if not _is_for_annotations(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree), [name for name in imported_names(tree) if name.startswith("colpipe.")]


def _is_for_annotations(node: ast.stmt) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`, which no run executes."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Names that may be modules, of imports anywhere in a module: `from a.b import c` gives a.b and a.b.c."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
