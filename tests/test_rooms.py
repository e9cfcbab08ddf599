"""Arrows between rooms go one way, as docs/architecture.md draws them."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up. A room imports rooms of earlier lines alone: nothing above it and nothing beside it.
FLOORS = {
    "src/engram": (
        ("errors", "cache", "files", "foreign_files", "frozen", "history", "processes"),
        ("kernels", "tokenizer", "fitting"),
        ("memory",),
        ("config",),
        ("scaling",),
        ("corpus", "model"),
        ("training",),
        ("evaluation", "analysis"),
        ("benchmarks", "verify"),
        ("__init__",),
    ),
    "engramctl": (("results",), ("cluster",), ("sweep",), ("findings",), ("present",), ("commands",), ("cli", "__init__"), ("__main__",)),
}
FOR_ALL = {"engramctl.present.format", "engramctl.__version__"}
"""How numbers are written, in errors too, and the version."""
FORBIDDEN = {
    "src/engram": {"engramctl", "ray", "typer", "rich"},
    "src/engram/fitting": {"torch", "pandas"},
    "engramctl/results": {"ray", "torch", "matplotlib", "typer", "rich"},
    "engramctl/sweep": {"ray", "matplotlib", "typer", "rich"},
    "engramctl/cluster": {"matplotlib", "typer", "rich"},
    "engramctl/findings": {"ray", "torch", "matplotlib", "typer", "rich"},
    "engramctl/present": {"ray", "torch", "typer"},
}
ROOMS = [(package, room, floor) for package, floors in FLOORS.items() for floor, rooms in enumerate(floors) for room in rooms]


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, those inside functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(package: str, room: str) -> list[Path]:
    alone = ROOT / package / f"{room}.py"
    return [alone] if alone.exists() else sorted((ROOT / package / room).rglob("*.py"))


@pytest.mark.parametrize(("package", "room", "floor"), ROOMS)
def test_a_room_imports_only_rooms_below_it(package, room, floor):
    below = {other for rooms in FLOORS[package][:floor] for other in rooms}
    own = Path(package).name
    assert files(package, room)
    for path in files(package, room):
        for name in imports(path):
            top, _, rest = name.partition(".")
            if top == own and not any(name == one or name.startswith(f"{one}.") for one in FOR_ALL):
                assert rest.partition(".")[0] in below | {room}, f"{path} imports {name}"


def test_every_room_has_a_floor():
    for package, floors in FLOORS.items():
        there = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        assert there == {room for rooms in floors for room in rooms}


@pytest.mark.parametrize(("place", "libraries"), FORBIDDEN.items())
def test_what_a_room_does_without(place, libraries):
    for path in (ROOT / place).rglob("*.py"):
        for name in imports(path):
            assert name.partition(".")[0] not in libraries, f"{path} imports {name}"


def test_fitting_is_arithmetic_alone():
    named = {name for path in (ROOT / "src/engram/fitting").rglob("*.py") for name in imports(path) if name.startswith("engram.")}
    assert {".".join(name.split(".")[:2]) for name in named} == {"engram.errors", "engram.fitting"}


def test_the_library_loads_nothing_of_the_command_line():
    folder = ROOT / "src"
    names = sorted(".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.py"))
    if importlib.util.find_spec("triton") is None:
        names = [name for name in names if not name.startswith("engram.kernels.gpu.")]
    modules = ", ".join(name.removesuffix(".__init__") for name in names)
    code = f"import sys, {modules}; print(sorted({{'ray', 'typer', 'rich', 'engramctl'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_file_is_long():
    long = {path: n for place in FLOORS for path in (ROOT / place).rglob("*.py") if (n := len(path.read_text().splitlines())) > 300}
    assert long == {}
