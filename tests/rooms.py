"""The rooms of the package and who imports whom, read from the code.

python -m tests.rooms     prints the picture of docs/architecture.md
"""

import ast
from pathlib import Path

from colpipe.jobs.code import imported_names

PACKAGE = Path(__file__).parents[1] / "colpipe"
# From the ground up. A module imports from its own room and from floors below, never from beside or above.
FLOORS = (
    ("errors", "hashing"),
    ("architectures",),
    ("config",),
    ("jobs",),
    ("hf", "data"),
    ("cost", "learngene", "evaluation", "export"),
    ("pipeline", "training", "api"),
    ("reporting",),
    ("stages", "tools"),
    ("__main__",),
)


def module_imports() -> dict[str, set[str]]:
    """Module → the colpipe modules that it imports, lazily and for annotations too; `colpipe.` left out."""
    paths = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__init__.py"
    }
    return {
        module: {
            name
            for found in imported_names(ast.parse(path.read_text()))
            if found.startswith("colpipe.") and (name := found.removeprefix("colpipe.")) in paths
        }
        for module, path in paths.items()
    }


def room(module: str) -> str:
    return module.partition(".")[0]


def arrows() -> set[tuple[str, str]]:
    """(room, room that it imports from)."""
    pairs = {(room(module), room(name)) for module, names in module_imports().items() for name in names}
    return {(one, other) for one, other in pairs if one != other}


def picture() -> str:
    """Rooms and arrows in mermaid, which GitHub draws. What a longer way implies is left out."""
    edges = arrows()
    below: dict[str, set[str]] = {}
    for rooms in FLOORS:
        for name in rooms:
            direct = {other for one, other in edges if one == name}
            below[name] = direct.union(*(below.get(other, set()) for other in direct))
    lines = ["flowchart TD"]
    for rooms in reversed(FLOORS):
        for name in rooms:
            lines.append(f"    {name}[{name if (PACKAGE / name).is_dir() else name + '.py'}]")
    for one, other in sorted(edges):
        if not any(other in below[between] for start, between in edges if start == one and between != other):
            lines.append(f"    {one} --> {other}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(picture())
