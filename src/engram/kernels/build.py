"""Compiles the C++ sources in this folder once per type of machine and loads them: the kernels, and the reader of table rows on disk."""

import ctypes
import errno
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from engram.cache import default_cache, private_cache
from engram.files import naming, sync

_HERE = Path(__file__).parent
SOURCES = _HERE / "cpu"
"""The kernels; they call PyTorch's matrix products."""
DISK_SOURCES = _HERE / "disk"
"""Reader and writer of rows in files, for any CPU."""
_FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-fno-tree-loop-distribute-patterns",  # loops over a few numbers stay loops, not calls of memcpy
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-Wno-maybe-uninitialized",
    "-fPIC",
    "-shared",
    "-pthread",
)
_COMPILE_S = 300
_NO_ROOM = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded", errno.EFBIG: "File size limit exceeded"}
"""What compilers and linkers say in English when a disk refuses."""

Argument = Tensor | int | float | bool | None


class Library:
    """A compiled library, whose functions are called by name with tensors and numbers.

    OSError when it can't be loaded; PermissionError when somebody else could have written it.
    """

    def __init__(self, path: Path) -> None:
        # What is loaded is what was looked at, even if somebody else can change the folder. The descriptor stays open: the loader
        # takes a name that it has seen before for the library of that time.
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if why := _distrust(os.fstat(descriptor)):
                raise PermissionError(errno.EPERM, why, str(path))
            same = Path(f"/proc/self/fd/{descriptor}")
            self._functions = ctypes.CDLL(str(same if same.exists() else path))
        except BaseException:
            os.close(descriptor)
            raise

    def call(self, name: str, *arguments: Argument) -> None:
        """Call `engram_NAME`. Tensors are passed as pointers to contiguous memory; the caller is responsible for shapes and dtypes."""
        getattr(self._functions, f"engram_{name}")(*map(_argument, arguments))

    def count(self, name: str, *arguments: Argument) -> int:
        """Call `engram_NAME`, which returns a number."""
        function = getattr(self._functions, f"engram_{name}")
        function.restype = ctypes.c_int64
        return int(function(*map(_argument, arguments)))


def _argument(value: Argument) -> object:
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        assert value.device.type == "cpu"
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, bool):
        return ctypes.c_bool(value)
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_float(value)


def compiler() -> str | None:
    """Path of the C++ compiler: `$CXX`, g++ or clang++; None without any."""
    return next((found for name in (os.environ.get("CXX"), "g++", "clang++") if name and (found := shutil.which(name))), None)


@functools.cache
def fingerprint(sources: Path = SOURCES) -> str:
    """What the compiled file depends on, as 12 hexadecimal digits: sources, flags, PyTorch and the CPU's instructions."""
    text = hashlib.sha256()
    for path in sorted(sources.iterdir()):
        text.update(path.read_bytes())
    text.update(repr((_FLAGS, torch.__version__, sorted(torch.cpu.get_capabilities().items()))).encode())
    return text.hexdigest()[:12]


def compiled(sources: Path = SOURCES) -> Path:
    """The compiled sources of a folder, from the cache or newly compiled into it; several processes may ask at once.

    Code in a shared cache that somebody else could have put there is not used: then it is compiled into a private one. Raises
    RuntimeError where there is no compiler or it fails, OSError, which names the folder, where no cache can be written.
    """
    name = f"{fingerprint(sources)}.so"
    shared = default_cache() / "kernels"
    if distrusted(sources) is None:
        with suppress(PermissionError):
            return _compiled_into(shared, name, sources)
    return _compiled_into(private_cache() / "kernels", name, sources)


def distrusted(sources: Path = SOURCES) -> str | None:
    """Why the compiled file in the cache is not used, in one line; None if it is, or if there is none."""
    path = default_cache() / "kernels" / f"{fingerprint(sources)}.so"
    with suppress(FileNotFoundError):
        found = path.stat()
        if found.st_uid != os.getuid() and (why := _distrust(found)):
            return f"{path} is not used: {why}"
    return None


def _distrust(found: os.stat_result) -> str | None:
    """Why the code in a file must not be run: others can write into it, or could when they made it."""
    if found.st_uid not in (0, os.getuid()):
        return f"it belongs to uid {found.st_uid}, who could run anything as you"
    return "others can write to it" if found.st_mode & 0o022 else None


def _compiled_into(folder: Path, name: str, sources: Path) -> Path:
    path = folder / name
    if _usable(path):
        return path
    found = compiler()
    if found is None:
        raise RuntimeError("no C++ compiler (g++ or clang++, or $CXX)")
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder), FileLock(path.with_suffix(".lock")):
        if _usable(path):
            return path
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            out = Path(temporary) / path.name
            root = Path(torch.__file__).parent
            command = [found, *_FLAGS, *map(str, sorted(sources.glob("*.cpp"))), "-o", str(out)]
            if sources == SOURCES:
                command += [f"-I{root / 'include'}", f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"]
            # Its own temporary files lie in the cache too, so that there is one disk that can be full.
            settings = os.environ | {"TMPDIR": temporary, "LC_ALL": "C"}
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False, env=settings)
            if done.returncode:
                for number, text in _NO_ROOM.items():
                    if text in done.stderr:
                        raise OSError(number, os.strerror(number), str(folder))
                first = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
                raise RuntimeError(f"{found} failed: {first}")
            out.chmod(0o755)  # whatever the umask: what others can write to is not loaded
            sync(out)
            out.rename(path)
    return path


def _usable(path: Path) -> bool:
    """Whether a file is there that may be loaded; one of ours that others can write to is compiled again."""
    try:
        return _distrust(path.stat()) is None
    except FileNotFoundError:
        return False
