import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "engram"
# From the ground up. A room imports only rooms of earlier lines: nothing above it and nothing beside it.
FLOORS = (
    ("errors", "cache", "frozen", "history", "processes"),
    ("kernels", "tokenizer", "fitting"),
    ("memory",),
    ("config",),
    ("scaling",),
    ("corpus", "model"),
    ("training",),
    ("evaluation", "analysis"),
    ("benchmarks", "verify"),
    ("__init__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FOREIGN = {"engramctl", "ray", "typer", "rich"}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, those inside functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", FLOOR)
def test_a_room_imports_only_rooms_below_it(room):
    for path in [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else (PACKAGE / room).rglob("*.py"):
        for name in imports(path):
            top, _, rest = name.partition(".")
            assert top not in FOREIGN, f"{path} imports {name}"
            other = rest.partition(".")[0]
            assert top != "engram" or other == room or FLOOR[other] < FLOOR[room], f"{path} imports {name}"


def test_every_room_has_a_floor():
    assert {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} == FLOOR.keys()


def test_fitting_is_plain_arithmetic():
    named = {name for path in (PACKAGE / "fitting").rglob("*.py") for name in imports(path)}
    assert {".".join(name.split(".")[:2]) for name in named if name.startswith("engram.")} == {"engram.errors", "engram.fitting"}
    assert "torch" not in {name.partition(".")[0] for name in named}
