"""The structure of the package: arrows go down only, nothing goes in a circle, and the picture of it is current."""

import ast
from graphlib import TopologicalSorter

from tests.conftest import CHECKOUT
from tests.rooms import FLOORS, PACKAGE, arrows, module_imports, picture, room


def test_every_room_has_a_floor():
    rooms = {room(module) for module in module_imports()}
    assert rooms == {name for names in FLOORS for name in names}


def test_imports_go_down():
    """Lazy imports and those for annotations too. CONTRIBUTING.md says what to do when this fails."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    upward = sorted(
        f"{module} imports {name}"
        for module, names in module_imports().items()
        for name in names
        if room(module) != room(name) and floor[room(name)] >= floor[room(module)]
    )
    assert not upward, "upward imports: see 'Arrows go down' in CONTRIBUTING.md"


def test_modules_do_not_go_in_a_circle():
    assert list(TopologicalSorter(module_imports()).static_order())


def test_imports_name_modules_in_full():
    """Relative imports, and rooms imported whole, would be followed neither here nor for reruns."""
    rooms = {name for names in FLOORS for name in names if (PACKAGE / name).is_dir()}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: write the import in full"
                whole = rooms & {alias.name for alias in node.names} if node.module == "colpipe" else set()
                assert not whole, f"{path}:{node.lineno}: import modules of {whole}, not the room"


def test_packages_re_export_nothing():
    """Reruns follow imports module by module (colpipe/jobs/code.py); a re-exported name would escape."""
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:  # which gives `linit`, `initialise` and `scan` to notebooks; no stage imports it
            imported = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
            assert not imported, path


def test_the_picture_is_current():
    """If this fails: `python -m tests.rooms` prints what belongs into docs/architecture.md."""
    assert picture() in (CHECKOUT / "docs/architecture.md").read_text()


def test_the_picture_shows_what_there_is():
    """Every arrow is drawn, or follows from those that are."""
    drawn = {tuple(line.split(" --> ")) for line in picture().replace("    ", "").splitlines() if " --> " in line}
    reached: dict[str, set[str]] = {}
    for names in FLOORS:
        for name in names:
            direct = {other for one, other in drawn if one == name}
            reached[name] = direct.union(*(reached.get(other, set()) for other in direct))
    assert drawn <= arrows() and all(other in reached[one] for one, other in arrows())
