"""Synthetic rows of the trials table for the tests of the results store, figures and reports."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from engramctl.store import Store


def _row(
    rho: float = 0.6, seed: int = 0, size: str = "3m", budget: float = 8.2e12, status: str = "finished", **more: Any
) -> dict[str, Any]:
    loss = more.pop("val_loss", 3.1 + 0.4 * (rho - 0.7) ** 2 + 0.004 * ((seed * 7 + round(rho * 20)) % 5 - 2))
    done = status == "finished"
    key = f"{size} {budget} {rho} {seed} {sorted(more.items())}"
    p_total = {"3m": 3_000_000, "10m": 10_000_000, "30m": 30_000_000}.get(size, 5_000_000)
    row: dict[str, Any] = {
        "trial_id": hashlib.sha256(key.encode()).hexdigest()[:12],
        "sweep": "allocation", "size": size, "rho": rho, "seed": seed, "budget_flops": budget,
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
        "device": "cpu", "precision": "fp32", "started_at": "2025-01-01T10:00:00Z", "finished_at": "2025-01-01T10:01:02Z",
        "status": status, "error": None if done else f"{status}: loss is nan at step 12",
    }  # fmt: skip
    assert not more.keys() - row.keys()
    return row | more


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("trial_id", "rho", "size", "seed", "budget_flops")}


def _fill(results: Path, rows: Iterable[dict[str, Any]], missing: Iterable[dict[str, Any]] = (), sweep: str = "allocation") -> Store:
    store = Store(results, sweep)
    store.check_writable()
    rows = [row | {"sweep": sweep} for row in rows]
    wanted = [_identity(row) for row in [*rows, *missing]]
    store.write_manifest({"sweep": {"name": sweep}, "budgets": sorted({r["budget_flops"] for r in wanted}), "trials": wanted})
    for row in rows:
        store.write_trial(row, None, None)
    return store


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    """A whole row of the trials table; any column can be given."""
    return _row


@pytest.fixture
def fill() -> Callable[..., Store]:
    """Write rows, and a manifest that names them and the missing ones, into a results folder."""
    return _fill


@pytest.fixture
def curve() -> dict[str, list[Any]]:
    return {
        "step": [1, 2], "tokens": [4096, 8192], "train_loss": [8.0, 7.5], "learning_rate": [1e-4, 2e-4], "grad_norm": [3.0, 2.0],
        "load_max_over_mean": [1.5, 1.4], "load_cv": [0.2, 0.1], "val_loss": [None, 7.6], "copy_loss": [None, 8.0],
        "expert_loads": [None, [[60, 68], [64, 64]]],
    }  # fmt: skip


@pytest.fixture
def documents() -> dict[str, list[Any]]:
    return {"document": ["aa", "bb"], "n_tokens": [100, 28], "n_bytes": [300, 90], "loss_sum": [310.0, 88.5]}
