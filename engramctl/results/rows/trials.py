"""The row of a trial: config, accounting, outcome and origin as flat columns."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from engram.config.model import ModelConfig
from engram.config.trial import TrialConfig
from engram.memory.designs.registry import NONE
from engram.scaling.accounting import count_parameters, model_flops_per_token, table_rows, train_flops_per_token
from engramctl.results import provenance
from engramctl.results.schema.trials import TRIAL_COLUMNS


@dataclass(frozen=True)
class SweepContext:
    """What the rows of a sweep have in common."""

    sweep: str
    corpus: str
    git_sha: str


def accounting_columns(model: ModelConfig) -> dict[str, Any]:
    """Shape and parameter counts of a model, as columns."""
    counts, memory = count_parameters(model), model.memory
    return {
        "n_layers": model.n_layers,
        "width": model.width,
        "n_heads": model.attention.n_heads,
        "expert_width": model.moe.expert_width,
        "top_k": model.moe.top_k,
        "n_routed_experts": model.moe.n_routed_experts,
        "shared_width": model.moe.shared_width,
        "branches": model.branches,
        "attention": model.attention.kind,
        "memory_design": memory.design if memory else NONE,
        "n_slots": table_rows(memory) if memory else 0,
        "memory_dim": memory.memory_dim if memory else 0,
        "max_ngram": memory.max_ngram if memory else 0,
        "hash_heads": memory.n_heads if memory else 0,
        "memory_layers": list(memory.sites) if memory else [],
        "vocab_size": model.vocab_size,
        "p_total": counts.p_total,
        "p_active": counts.p_active,
        "p_sparse": counts.p_sparse,
        "p_engram": counts.p_engram,
        "p_embedding": counts.p_embedding,
        "rho_realised": counts.rho,
    }


def planned_columns(trial: TrialConfig) -> dict[str, Any]:
    """Everything known about a trial before it runs, as columns."""
    train = trial.train
    return {
        "trial_id": trial.id,
        "size": trial.size,
        "rho": trial.rho,
        "variant": trial.variant,
        "axes": json.dumps(dict(trial.axes)),
        "seed": trial.seed,
        "budget_flops": trial.budget_flops,
        **accounting_columns(trial.model),
        "optimizer": train.optimizer.kind,
        "schedule": train.schedule.kind,
        "learning_rate": train.learning_rate,
        "batch_size": train.batch_size,
        "seq_len": train.seq_len,
        "steps": train.steps,
        "tokens": train.tokens,
        "train_flops": float(train_flops_per_token(trial.model) * train.tokens),
        "model_flops": float(model_flops_per_token(trial.model, train.seq_len) * train.tokens),
    }


def trial_row(trial: TrialConfig, context: SweepContext, status: str, error: str | None, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The whole row; outcome and cost columns that `outcome` lacks are null."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = {
        **planned_columns(trial),
        "sweep": context.sweep,
        "config": trial.model_dump_json(),
        "corpus": context.corpus,
        "corpus_fingerprint": trial.corpus_fingerprint,
        "tokenizer_fingerprint": trial.tokenizer_fingerprint,
        "git_sha": context.git_sha,
        "versions": provenance.versions(str(outcome.get("device") or "cpu")),
        "hostname": provenance.hostname(),
        "started_at": now,
        "finished_at": now,
        "n_restarts": 0,
        "status": status,
        "error": error,
        **outcome,
    }
    return {column.name: known.get(column.name) for column in TRIAL_COLUMNS}
