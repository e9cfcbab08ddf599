"""Sweep files: finding them by name, and reading them with the command line's overrides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engram.config.errors import explain
from engram.errors import UserError
from engramctl.sweep.limits import MAX_FILE_BYTES
from engramctl.sweep.overrides import lay_over
from engramctl.sweep.spec import SweepSpec
from engramctl.sweep.yaml_text import read_yaml

_TEXT_FIELDS = ("question", "sizes", "variants", "budgets", "corpus.source", "corpus.text_column", "corpus.tokenizer")
"""Their values are text as written: a variant `on` is not True."""


def sweep_folders() -> list[Path]:
    """Where names are looked up: `sweeps/` in the working directory, then the sweeps that come with the program."""
    package = Path(__file__).resolve().parents[1]
    return [Path("sweeps"), package / "_sweeps", package.parent / "sweeps"]


def find_sweep(name: str) -> Path:
    """The file of a sweep, given by name or path; UserError lists the known names."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"sweep file {name} does not exist")
        return path
    known: dict[str, Path] = {}
    for folder in reversed(sweep_folders()):
        known |= {path.stem: path for path in sorted(folder.glob("[!.]*.yaml"))}
    if name not in known:
        raise UserError(f"sweep '{name}' is unknown; there are {', '.join(sorted(known))}, or give the path of a .yaml file")
    return known[name]


def load_sweep(path: Path, overrides: Mapping[str, Any]) -> SweepSpec:
    """Read a sweep file and apply overrides to it; UserError names the file and the line or the field."""
    content = read_yaml(_text(path), str(path), _TEXT_FIELDS)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping with the keys {', '.join(SweepSpec.model_fields)}")
    try:
        spec = SweepSpec.model_validate(content)  # without overrides first: a mistake in the file is reported as the file's
    except ValidationError as problem:
        raise UserError(f"{path}: {explain(problem)}") from None
    if not overrides:
        return spec
    try:
        return SweepSpec.model_validate(lay_over(spec.model_dump(), overrides))
    except ValidationError as problem:
        raise UserError(explain(problem)) from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise UserError(f"{path} is larger than {MAX_FILE_BYTES // 1024} KiB, the limit of a sweep file")
        return content.decode()
    except UnicodeDecodeError as problem:
        raise UserError(f"{path} is not UTF-8 (byte {problem.start})") from None
    except OSError as problem:
        raise UserError(f"{path} can't be read: {problem.strerror}") from None
