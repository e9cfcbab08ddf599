import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engram import kernels
from engram.errors import UserError
from engram.kernels import build
from engram.kernels.build import Library, compiled, distrusted

WIDE = bool(torch.cpu.get_capabilities().get("avx512_f"))


needs_avx512 = pytest.mark.skipif(not WIDE, reason="no AVX-512")


needs_kernels = pytest.mark.skipif(not WIDE or build.compiler() is None, reason="no AVX-512 or no C++ compiler")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    if WIDE and build.compiler() is not None:
        assert kernels.load() is None
    yield
    torch.set_num_threads(before)


@needs_avx512
def test_without_a_compiler_it_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(kernels, "_library", None)
    assert "no C++ compiler" in str(kernels.load())
    assert not kernels.available()
    assert kernels.library(torch.zeros(2)) is None


@needs_avx512
def test_a_compiler_that_fails_is_not_fatal(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setattr(kernels, "_library", None)
    assert "failed" in str(kernels.load())
    assert list(tmp_path.glob("kernels/*.so")) == []


@needs_kernels
def test_a_damaged_file_is_not_fatal(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "_library", None)
    damaged = tmp_path / "kernels" / f"{build.fingerprint()}.so"
    damaged.parent.mkdir()
    damaged.write_bytes(b"not a library")
    assert "can't be loaded" in str(kernels.load())
    assert kernels.library(torch.zeros(2)) is None


def test_without_avx512_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "_library", None)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert "no AVX-512" in str(kernels.load())
    assert not kernels.available()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
def test_a_full_cache_is_no_reason_to_train_with_other_rounding(monkeypatch: pytest.MonkeyPatch, tmp_path, small_disk):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "tiny.cpp").write_text('extern "C" long engram_one() { return 1; }')
    disk = small_disk("200k")
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(disk.folder))
    for leave in (0, 4096, 8192):
        disk.fill(leave)
        monkeypatch.setattr(kernels, "compiled", lambda: build.compiled(sources))
        monkeypatch.setattr(kernels, "_cpu_can", lambda: True)
        with pytest.raises(UserError, match=rf"kernels can't be compiled .*{disk.folder}.*: No space left on device; make room"):
            kernels.prepare()
        disk.make_room()
        assert disk.files() == []
    assert build.Library(build.compiled(sources)).count("one") == 1


needs_compiler = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A library of one function that is compiled at once, and a cache of its own."""
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "private_cache", lambda: tmp_path / "private")
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "answer.cpp").write_text('extern "C" long engram_answer() { return 42; }')
    return folder


def _planted(source: Path, tmp_path: Path) -> Path:
    """The same name in the cache, with code of somebody else that leaves a trace when it is loaded."""
    path = compiled(source)
    trap = tmp_path / "trap.cpp"
    trap.write_text(
        f'#include <cstdio>\nstatic int sprung = [] {{ fclose(fopen("{tmp_path}/sprung", "w")); return 0; }}();'
        'extern "C" long engram_answer() { return 13; }'
    )
    subprocess.run([str(build.compiler()), "-shared", "-fPIC", "-o", str(path), str(trap)], check=True)
    return path


@needs_compiler
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_code_of_somebody_else_in_a_shared_cache_is_not_loaded(source, tmp_path):
    path = _planted(source, tmp_path)
    os.chown(path, 65534, 65534)
    with pytest.raises(PermissionError, match="it belongs to uid 65534"):
        Library(path)
    assert distrusted(source) == f"{path} is not used: it belongs to uid 65534, who could run anything as you"
    assert compiled(source) == tmp_path / "private" / "kernels" / path.name
    assert Library(compiled(source)).count("answer") == 42
    assert not (tmp_path / "sprung").exists()


@needs_compiler
def test_code_that_others_can_write_to_is_compiled_again(source, tmp_path):
    path = _planted(source, tmp_path)
    path.chmod(0o775)
    with pytest.raises(PermissionError, match="others can write to it"):
        Library(path)
    assert compiled(source) == path
    assert Library(path).count("answer") == 42
    assert not (tmp_path / "sprung").exists()


@needs_compiler
def test_a_umask_for_groups_makes_no_file_that_is_distrusted(source):
    before = os.umask(0)
    try:
        assert Library(compiled(source)).count("answer") == 42
    finally:
        os.umask(before)


@needs_compiler
def test_two_processes_compile_at_once(source):
    code = "import sys; from pathlib import Path; from engram.kernels.build import Library, compiled"
    code += "; print(Library(compiled(Path(sys.argv[1]))).count('answer'))"
    both = [subprocess.Popen([sys.executable, "-c", code, str(source)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=100)[0] for process in both] == ["42\n", "42\n"]
    left = {path.suffix for path in compiled(source).parent.iterdir()}
    assert left <= {".so", ".lock"}
