"""The `python` corpus: text of the standard library and of the installed packages.

It needs no network and is the same on every machine with the same Python and the same packages: a file is taken only if its package ships
it (it is listed in the package's RECORD with a hash), not if installing the package wrote it.
"""

import hashlib
import os
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path

from engram.corpus.document import Document

SUFFIXES = frozenset({".py", ".pyi", ".md", ".rst", ".txt"})
MAX_FILE_BYTES = 512 * 1024
"""Larger files are taken to be generated data, not text that someone wrote."""

# Parts of the standard library that a build may leave out or package separately (container images drop the tests, Linux distributions split
# off Tk, IDLE and others), and the folders where third-party packages are.
_STDLIB_LEFT_OUT = frozenset(
    [
        "__pycache__",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "idlelib",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "venv",
        "lib2to3",
        "distutils",
    ]
)
# Written when Python was built or set up on this machine; they contain its paths.
_STDLIB_WRITTEN_HERE = ("config-", "_sysconfigdata", "sitecustomize", "usercustomize")
# Ourselves: every commit would change the corpus. pip: it comes with the environment, not with the pinned packages. transformers: most of
# its files are generated from one another, so validation text would appear in training nearly word for word. triton: it comes with
# PyTorch for GPUs, and the corpus shall be the same with and without one.
_PACKAGES_LEFT_OUT = frozenset({"engram", "engramctl", "pip", "transformers", "triton"})


def python_documents(skipped: Counter[str]) -> Iterator[Document]:
    """Texts of this environment's Python files and documentation, in the order of `python_files`, with their packages.

    Files that can't be read are counted in `skipped`, by reason.
    """
    for path, package in python_files().items():
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            skipped["not UTF-8"] += 1
            continue
        except OSError as problem:
            skipped[problem.strerror or "can't be read"] += 1
            continue
        if text:
            yield Document(text, package)
        else:
            skipped["empty"] += 1


def python_files(stdlib: Path | None = None, packages: Sequence[Path] | None = None) -> dict[Path, str]:
    """Files of the corpus and the package that each belongs to, by default those of the running Python.

    A package is what is installed under one name; of the standard library it is a module or package that programs import.
    The files are sorted by the SHA-256 of kind of root and relative path, so that the order does not depend on where Python is installed,
    and the first files are a fair sample of all.
    """
    paths = sysconfig.get_paths()
    stdlib = Path(paths["stdlib"]) if stdlib is None else stdlib
    packages = [Path(paths["purelib"]), Path(paths["platlib"])] if packages is None else packages
    files = {f"stdlib/{name}": (stdlib / name, f"stdlib {Path(name).parts[0].removesuffix('.py')}") for name in _stdlib_names(stdlib)}
    for root in packages:
        files |= {f"packages/{name}": (root / name, package) for name, package in _package_names(root)}
    kept = (name for name, (path, _) in files.items() if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES)
    return dict(files[name] for name in sorted(kept, key=lambda name: hashlib.sha256(name.encode()).digest()))


def _stdlib_names(root: Path) -> Iterator[str]:
    """Relative paths, with forward slashes, of the standard library's text files. Links to folders are not followed."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _STDLIB_LEFT_OUT and not name.startswith(_STDLIB_WRITTEN_HERE)]
        for name in names:
            if Path(name).suffix in SUFFIXES and not name.startswith(_STDLIB_WRITTEN_HERE):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _package_names(root: Path) -> Iterator[tuple[str, str]]:
    """Relative paths of the text files that the packages installed in `root` ship, and the names of the packages."""
    for distribution in distributions(path=[str(root)]):
        package = (distribution.metadata["Name"] or "").lower()
        if package in _PACKAGES_LEFT_OUT:
            continue
        for file in distribution.files or ():
            # No hash: written while installing. "..": installed outside `root`, such as a script whose first line has a path of this
            # machine. A .dist-info folder: the installer's own notes.
            shipped = file.hash is not None and ".." not in file.parts and not file.is_absolute()
            if shipped and file.suffix in SUFFIXES and not file.parts[0].endswith((".dist-info", ".egg-info")):
                yield file.as_posix(), package
