from collections.abc import Iterator

import pytest
import torch

from engram import kernels
from engram.errors import UserError
from engram.kernels import build

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
