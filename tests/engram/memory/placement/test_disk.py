import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.errors import UserError
from engram.memory.placement import row_file
from engram.memory.placement.disk import DiskRows, create_rows
from engram.memory.placement.engine import library
from engram.memory.placement.row_file import RowSpec

SMALLEST = 80_000


def table(path: Path, rows: int, row_dim: int, row_format: str = "fp32", state: tuple[int, ...] = (), cache_bytes: int = SMALLEST):
    weights = torch.randn(rows, row_dim, generator=torch.Generator().manual_seed(rows))
    spec = RowSpec("test", rows, row_dim, row_format, sum(state))
    create_rows(path, spec, weights.split(37))
    return DiskRows(path, spec, cache_bytes, state), weights


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rows_on_disk_are_a_matrix_with_a_cache(data, tmp_path_factory):
    """Any calls in any order, and the way back to a checkpoint at any moment."""
    rows, row_dim = data.draw(st.integers(1, 300)), data.draw(st.sampled_from([1, 3, 40, 150]))
    folder = tmp_path_factory.mktemp("table")
    path = folder / "a.rows"
    stored, weights = table(path, rows, row_dim, state=(row_dim, 1), cache_bytes=64 * (row_dim * 8 + 60))
    stored.journal.begin(0)
    expected, kept, step = weights.clone(), weights.clone(), 0
    state = torch.zeros(rows, 1)
    kept_state = state.clone()

    def change(weight, parts, at, grad):
        weight[at] += grad
        parts[0][at] += 2
        parts[1][at] -= grad[:, :1]

    for _ in range(data.draw(st.integers(1, 12))):
        ids = torch.tensor(sorted(data.draw(st.sets(st.integers(0, rows - 1), min_size=1))))
        match data.draw(st.sampled_from(["read", "prefetch", "update", "checkpoint", "killed"])):
            case "read":
                assert torch.equal(stored.read(ids), expected[ids])
            case "prefetch":
                stored.prefetch(ids)
            case "update":
                step += 1
                grad = torch.randn(len(ids), row_dim, generator=torch.Generator().manual_seed(step))
                stored.update(ids, grad, change, step)
                expected[ids] += grad
                state[ids] -= grad[:, :1]
            case "checkpoint":
                stored.engine.flush()
                stored.journal.begin(step)
                kept, kept_state = expected.clone(), state.clone()
            case "killed":
                stored.close()
                stored = DiskRows(path, stored.spec, 64 * (row_dim * 8 + 60), (row_dim, 1))
                base = max(int(one.name.rpartition("-")[2]) for one in folder.glob("*.undo-*"))
                stored.journal.recover(base)
                stored.journal.begin(base)
                expected, state, step = kept.clone(), kept_state.clone(), base
                assert torch.equal(torch.cat(list(stored.passes())), expected)
    assert torch.equal(torch.cat(list(stored.passes())), expected)
    got = []
    stored.update(torch.arange(rows), torch.zeros(rows, row_dim), lambda w, s, at, g: got.append(s[1].clone()), step + 1)
    assert torch.equal(torch.cat(got), state)
    stored.close()


def test_threads_do_what_the_ring_does(tmp_path, monkeypatch):
    """Where the kernel refuses io_uring, as containers often do."""
    from engram.kernels.build import Library

    count = Library.count

    def without_ring(self, name, *arguments):
        return count(self, name, *((*arguments[:-1], False) if name == "rows_open" else arguments))

    monkeypatch.setattr(Library, "count", without_ring)
    stored, weights = table(tmp_path / "a.rows", 5000, 24, state=(24,))
    assert not library().count("rows_is_ring", stored.engine._handle)
    ids = torch.randperm(5000)[:3000]
    assert torch.equal(stored.read(ids), weights[ids])
    stored.update(ids, torch.ones(3000, 24), lambda w, s, at, g: w.add_(g), 1)
    assert torch.equal(stored.read(ids), weights[ids] + 1)
    stored.close()


def test_a_file_system_without_direct_io_is_good_enough(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, flags, *rest):
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return opened(path, flags, *rest)

    monkeypatch.setattr(row_file.os, "open", refuse)
    stored, weights = table(tmp_path / "a.rows", 500, 24)
    assert torch.equal(stored.read(torch.arange(500)), weights)
    stored.close()


def test_half_a_file_never_has_the_name_of_a_table(tmp_path):
    def fails():
        yield torch.zeros(50, 4)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        create_rows(tmp_path / "a.rows", RowSpec("test", 100, 4, "fp32"), fails())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"rows": 101}, {"row_dim": 5}, {"format": "bf16"}, {"table": "other"}])
def test_a_file_of_other_contents_is_refused(tmp_path, change):
    stored, _ = table(tmp_path / "a.rows", 100, 4)
    stored.close()
    wanted = {"table": "test", "rows": 100, "row_dim": 4, "format": "fp32"} | change
    with pytest.raises(UserError, match=f"is another's: its {next(iter(change))} is"):
        DiskRows(tmp_path / "a.rows", RowSpec(**wanted), SMALLEST)
