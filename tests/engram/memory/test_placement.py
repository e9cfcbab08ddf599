"""Rows in files and in formats of serving: what is read is what was written, wherever the rows lie."""

import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram import kernels
from engram.config import ModelConfig
from engram.errors import UserError
from engram.generation import generate
from engram.memory.placement import row_file
from engram.memory.placement.disk import DiskRows, create_rows
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.row_file import RowSpec
from engram.memory.placement.serving import disk_rows, host_rows, serve
from engram.memory.placement.worker import Worker
from engram.model import Transformer

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


@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 0.0), ("bf16", 2**-8), ("int8", 1 / 127), ("fp8", 2**-3)])
def test_formats_keep_rows_within_their_precision(name, tolerance, tmp_path):
    rows = torch.randn(1000, 24)
    rows[5] = 0
    rows[6] *= 1e-6
    kind = FORMATS[name]
    stored = kind.encode(rows)
    assert stored.dtype == torch.uint8
    assert stored.shape == (1000, kind.row_bytes(24))
    back = kind.decode(stored)
    assert torch.all((back - rows).abs() <= tolerance * rows.abs().amax(-1, keepdim=True))
    assert torch.equal(kind.decode(kind.encode(back)), back) or name in ("int8", "fp8")
    assert torch.equal(back[5], rows[5])
    if name != "fp32":
        assert not torch.equal(back, rows)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("row_dim", [1, 24, 200])
def test_files_of_serving_hold_what_ram_holds(name, row_dim, tmp_path):
    stored, weights = table(tmp_path / "a.rows", 5000, row_dim, name)
    in_ram = host_rows(weights.split(37), 5000, row_dim, name)
    for _ in range(5):
        ids = torch.randperm(5000)[:700]
        assert torch.equal(stored.read(ids), in_ram.read(ids))
    per_row = (tmp_path / "a.rows").stat().st_size / 5000
    assert per_row < FORMATS[name].row_bytes(row_dim) + 8 + 512  # small rows share a sector
    if FORMATS[name].row_bytes(row_dim) < 100:
        assert per_row < 1.4 * (FORMATS[name].row_bytes(row_dim) + 8) + 1
    stored.close()


def test_threads_do_what_the_ring_does(tmp_path, monkeypatch):
    """Where the kernel refuses io_uring, as containers often do."""
    from engram.kernels.build import Library

    count = Library.count

    def without_ring(self, name, *arguments):
        return count(self, name, *((*arguments[:-1], False) if name == "rows_open" else arguments))

    monkeypatch.setattr(Library, "count", without_ring)
    stored, weights = table(tmp_path / "a.rows", 5000, 24, state=(24,))
    assert not stored.engine.is_ring
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


def test_jobs_of_the_worker_go_in_their_order_and_none_is_lost():
    worker, done, gate = Worker(), [], threading.Event()
    worker.tell(lambda: gate.wait(10))
    for number in range(50):
        worker.tell(lambda number=number: done.append(number))
    last = worker.ask(lambda: len(done))
    gate.set()
    assert worker.result(last) == 50
    assert done == list(range(50))
    assert worker.wait_s > 0
    worker.tell(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker.drain()
    worker.drain()
    worker.close()


MEMORIES = {
    "engram": {"design": "engram", "layers": [0, 2], "table_sizes": [400, 500], "n_heads": 2, "memory_dim": 16},
    "over-encoding": {"design": "over-encoding", "table_sizes": [400, 500], "n_heads": 2, "memory_dim": 16},
    "value": {"design": "value", "layers": [0, 2], "table_sizes": [400, 500], "n_heads": 2, "memory_dim": 16},
}


def build(memory: str) -> Transformer:
    config = ModelConfig.model_validate(
        {
            "vocab_size": 97,
            "width": 24,
            "n_layers": 3,
            "attention": {"kind": "mha", "n_heads": 3},
            "moe": {"n_routed_experts": 7, "top_k": 2, "expert_width": 8, "shared_width": 10},
            "memory": MEMORIES[memory],
            "table_init_std": 1.0,
        }
    )
    model = Transformer(config, torch.arange(97) // 2, 3)
    model.initialise(1)
    return model.eval()


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("place", ["host", "disk"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("memory", MEMORIES)
@torch.no_grad()
def test_a_served_model_says_what_it_says_with_its_tables_inside(memory, name, place, prefetch, tmp_path):
    """The same logits and continuations as with the rows of that format in the model, to the bit."""
    inside, outside = build(memory), build(memory)
    rows = []
    for number, table_set in enumerate(outside.lookup.table_sets):
        weight = table_set.weight.detach().clone()
        n, row_dim = weight.shape
        if place == "host":
            rows.append(host_rows([weight], n, row_dim, name))
        else:
            rows.append(disk_rows(tmp_path / f"{number}.rows", [weight], RowSpec(f"t{number}", n, row_dim, name), SMALLEST))
    for table_set in inside.lookup.table_sets:
        table_set.weight.copy_(FORMATS[name].decode(FORMATS[name].encode(table_set.weight)))
    served = serve(outside.lookup, rows, prefetch)
    try:
        with kernels.plain():
            tokens = torch.randint(0, 97, (3, 40))
            assert torch.equal(outside.logits(tokens), inside.logits(tokens))
            request = outside.request(tokens)
            assert torch.equal(outside(tokens, request=request), inside(tokens))
            prompts = [[1, 2, 3], [4], list(range(30))]
            assert generate(outside, prompts, 12, end_id=3, seed=1, temperature=1.0) == generate(
                inside, prompts, 12, end_id=3, seed=1, temperature=1.0
            )
        assert all(table_set.weight.is_meta for table_set in outside.lookup.table_sets)
        assert (served.traffic is not None) == (place == "disk")
    finally:
        served.close()
