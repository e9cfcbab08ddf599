"""Synthetic rows of the trials table for the tests of the results store, figures and reports."""

import gc
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engramctl.results.manifest import Manifest
from engramctl.results.schema.trials import TRIAL_SCHEMA
from engramctl.results.store import Store
from engramctl.results.sweep_results import SweepResults


def _row(
    rho: float = 0.6, seed: int = 0, size: str = "3m", budget: float = 8.2e12, status: str = "finished", **more: Any
) -> dict[str, Any]:
    loss = more.pop("val_loss", 3.1 + 0.4 * (rho - 0.7) ** 2 + 0.004 * ((seed * 7 + round(rho * 20)) % 5 - 2))
    done = status == "finished"
    key = f"{size} {budget} {rho} {seed} {sorted(more.items())}"
    p_total = {"3m": 3_000_000, "10m": 10_000_000, "30m": 30_000_000}.get(size, 5_000_000)
    row: dict[str, Any] = {
        "trial_id": hashlib.sha256(key.encode()).hexdigest()[:12],
        "sweep": "allocation", "size": size, "rho": rho, "variant": "", "axes": "{}", "seed": seed, "budget_flops": budget,
        "config": "{}", "corpus": "python", "n_layers": 4, "width": 96, "n_heads": 4, "expert_width": 48, "top_k": 2,
        "n_routed_experts": round(4 + 60 * rho), "shared_width": 64, "n_slots": round(200_000 * (1 - rho)),
        "memory_dim": 48 if rho < 1 else 0, "max_ngram": 3 if rho < 1 else 0, "hash_heads": 2 if rho < 1 else 0,
        "memory_layers": [1] if rho < 1 else [], "memory_design": "engram" if rho < 1 else "none", "branches": 1, "attention": "mha",
        "optimizer": "adamw", "schedule": "wsd", "learning_rate": 2e-3, "batch_size": 16, "seq_len": 256, "vocab_size": 4096,
        "p_total": p_total, "p_active": p_total // 3, "p_sparse": p_total - p_total // 3, "p_engram": 100_000,
        "p_embedding": 393_216, "rho_realised": rho, "steps": 1000, "tokens": 4_096_000, "train_flops": budget,
        "model_flops": 1.4 * budget,
        "val_loss": loss if done else None, "val_loss_se": 0.01 if done else None, "val_bpb": loss / 2 if done else None,
        "val_tokens": 131_072 if done else None, "val_documents": 90 if done else None, "train_loss": loss - 0.1 if done else None,
        "copy_loss": 1.0 if done else None, "loss_by_position": [6.0, 5.0, 4.0] if done else None,
        "load_max_over_mean": 1.6 if done else None, "load_cv": 0.2 if done else None, "starved_experts": 0 if done else None,
        "wall_s": 61.5, "train_s": 60.0, "tokens_per_s": 66_000.0, "peak_rss_bytes": 900_000_000, "n_restarts": 0,
        "git_sha": "0" * 40, "corpus_fingerprint": "c0", "tokenizer_fingerprint": "70", "versions": "{}", "hostname": "box",
        "devices": 1, "tables": "process" if rho < 1 else None, "tables_wait_s": 0.0, "tables_hit_rate": 1.0,
        "device": "cpu", "precision": "fp32", "started_at": "2025-01-01T10:00:00Z", "finished_at": "2025-01-01T10:01:02Z",
        "status": status, "error": None if done else f"{status}: loss is nan at step 12",
    }  # fmt: skip
    assert not more.keys() - row.keys()
    return row | more


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("trial_id", "rho", "size", "variant", "seed", "budget_flops")}


def _documents(row: dict[str, Any]) -> dict[str, list[Any]]:
    """Losses on documents of a finished row: some documents are harder for all trials, and the mean is the row's loss."""
    tokens = np.arange(50, 62)
    noise = np.random.default_rng(int(row["trial_id"], 16)).normal(0, 0.005, len(tokens))
    losses = np.linspace(-1, 1, len(tokens)) + noise
    losses += row["val_loss"] - (losses * tokens).sum() / tokens.sum()
    ids = [f"{i:04x}" for i in range(len(tokens))]
    sums = {"n_tokens": tokens.tolist(), "n_bytes": (3 * tokens).tolist(), "loss_sum": (losses * tokens).tolist()}
    return {"document": ids, **sums, "overlap": [0.0] * len(ids)}


def _manifest(rows: Iterable[dict[str, Any]], **declared: Any) -> Manifest:
    return Manifest.model_validate({"sweep": declared, "budgets": {}, "trials": [_identity(row) for row in rows]})


def _fill(
    results: Path, rows: Iterable[dict[str, Any]], missing: Iterable[dict[str, Any]] = (), sweep: str = "allocation", **declared: Any
) -> Store:
    store = Store(results, sweep)
    store.check_writable()
    rows = [row | {"sweep": sweep} for row in rows]
    store.write_manifest(_manifest([*rows, *missing], **declared))
    for row in rows:
        store.write_trial(row, None, _documents(row) if row["status"] == "finished" else None)
    return store


def _opened(rows: Iterable[dict[str, Any]], missing: Iterable[dict[str, Any]] = (), **declared: Any) -> SweepResults:
    rows, missing = list(rows), list(missing)
    manifest = _manifest([*rows, *missing], **declared)
    return SweepResults.of_rows(Store(Path("nowhere"), "allocation"), manifest, pd.DataFrame(rows, columns=TRIAL_SCHEMA.names))


def _keys(value: Any, place: str = "$") -> dict[str, str]:
    """The keys of every object by its place; the first element of a list stands for all of them."""
    if isinstance(value, list):
        return _keys(value[0], f"{place}[]") if value else {}
    if not isinstance(value, dict) or not value or place.endswith(".left_out"):  # what is left out depends on the machine
        return {}
    found = {place: ", ".join(value)}
    for key, inner in value.items():
        found |= _keys(inner, f"{place}.{key}")
    return found


def _wanted(rows: Iterable[dict[str, Any]], missing: Iterable[dict[str, Any]] = (), **declared: Any) -> pd.DataFrame:
    return _opened(rows, missing, **declared).wanted


@pytest.fixture(scope="session")
def check_keys() -> Callable[[str, Any], None]:
    """Compare the keys of a command's JSON with tests/data/golden.json."""
    golden = json.loads((Path(__file__).parents[1] / "data" / "golden.json").read_text(encoding="utf-8"))["json"]

    def check(name: str, value: Any) -> None:
        assert _keys(value) == golden[name]

    return check


@pytest.fixture(scope="session")
def make_row() -> Callable[..., dict[str, Any]]:
    """A whole row of the trials table; any column can be given."""
    return _row


@pytest.fixture(scope="session")
def fill() -> Callable[..., Store]:
    """Write rows with documents, and a manifest that names them and the missing ones, into a results folder."""
    return _fill


@pytest.fixture
def opened() -> Callable[..., SweepResults]:
    """A sweep of rows and missing trials that lies in no folder."""
    return _opened


@pytest.fixture
def wanted() -> Callable[..., pd.DataFrame]:
    """All trials of a sweep, rows and missing ones, as fits and figures take them."""
    return _wanted


@pytest.fixture(scope="session")
def variant_rows() -> Callable[..., list[dict[str, Any]]]:
    """Rows of one variant of an axis, one per seed, with these losses; None: diverged."""

    def rows(axis: str, label: str, losses: Iterable[float | None], **columns: Any) -> list[dict[str, Any]]:
        made = []
        for seed, loss in enumerate(losses):
            at = {"rho": 0.5, "seed": seed, "variant": label, "axes": json.dumps({axis: label})} | columns
            made.append(_row(**at, **({"status": "diverged"} if loss is None else {"val_loss": loss})))
        return made

    return rows


@pytest.fixture
def curve() -> dict[str, list[Any]]:
    return {
        "step": [1, 2], "tokens": [4096, 8192], "train_loss": [8.0, 7.5], "learning_rate": [1e-4, 2e-4], "grad_norm": [3.0, 2.0],
        "load_max_over_mean": [1.5, 1.4], "load_cv": [0.2, 0.1], "val_loss": [None, 7.6], "copy_loss": [None, 8.0],
        "expert_loads": [None, [[60, 68], [64, 64]]],
    }  # fmt: skip


@pytest.fixture
def documents() -> dict[str, list[Any]]:
    return {"document": ["aa", "bb"], "n_tokens": [100, 28], "n_bytes": [300, 90], "loss_sum": [310.0, 88.5], "overlap": [0.0, None]}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for Ray's sockets; pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def settled_process(monkeypatch):
    """For commands that settle this process for training: puts it back for the tests that follow."""
    import torch

    from engram import kernels

    threads, threshold = torch.get_num_threads(), gc.get_threshold()
    monkeypatch.setattr(kernels, "_library", kernels._library)
    yield
    torch.set_num_threads(threads)
    gc.set_threshold(*threshold)
    gc.unfreeze()
