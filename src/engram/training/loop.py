"""One trial from its config to its outcome; continues from its last checkpoint by itself."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.config import TrialConfig
from engram.corpus.dataset import Corpus, TrainBatches
from engram.errors import UserError
from engram.memory.module import MakeTables
from engram.memory.placement.lookup import Request
from engram.memory.placement.row_file import Report
from engram.memory.placement.settings import TablePlacement
from engram.memory.tables import EmbeddingTables
from engram.model import Transformer
from engram.processes import ALONE, Processes
from engram.training import checkpoint, shards
from engram.training.machine import resolve_precision
from engram.training.optimizers import Optimizers
from engram.training.placed_tables import PlacedTables, TableCost
from engram.training.replicas import check_processes, share_of_batch, sum_step, tables_for
from engram.training.schedule import rate_factor
from engram.training.validation import Validation, Validator, sequences_at_once

CURVE_POINTS = 200
"""Points of the training curve, about."""
TAIL_FRACTION = 0.05
"""Share of the steps at the end over which the final training loss and loads are averaged."""
_EXPLODED = 1.25
"""A smoothed loss this many times that of a uniform guess counts as divergence."""
_SMOOTHING = 0.7

Part = tuple[Tensor, Request | None]
"""Tokens int64 [b, T + 1] of one pass, on the host, and the request for their memory rows."""
Curve = dict[str, list[Any]]
CURVE_COLUMNS = (
    "step", "tokens", "train_loss", "learning_rate", "grad_norm", "load_max_over_mean", "load_cv", "val_loss", "copy_loss", "expert_loads",
)  # fmt: skip


@dataclass
class Progress:
    """Where a trial is."""

    step: int
    steps: int
    train_loss: float | None
    tokens_per_s: float | None


@dataclass
class Outcome:
    """What a trial came to; `values` are columns of its row."""

    status: str
    error: str | None
    values: dict[str, Any]
    curve: Curve
    documents: dict[str, np.ndarray] | None


@dataclass
class _State:
    """What a checkpoint keeps beside tensors."""

    step: int = 0
    wall_s: float = 0.0
    train_s: float = 0.0
    n_restarts: int = 0
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    smoothed_loss: float | None = None
    curve: Curve = field(default_factory=lambda: {name: [] for name in CURVE_COLUMNS})
    expert_loads: list[list[int]] = field(default_factory=list)
    """Tokens by layer and expert since the last validation."""


class Trainer:
    """Trains one trial in slices of time.

    Args:
        trial: what to train.
        corpus: the prepared corpus with the fingerprints that the trial names.
        folder: where its checkpoints lie; the latest is taken up.
        device: where to train.
        checkpoint_seconds: at least this long between checkpoints.
        initial: weights of another trial to start from (`state_dict` of its model); None: those of the trial's seed. Optimisers
            start fresh.
        processes: those that train the trial together, each with a `Trainer` that is used in the same way. What it comes to is the
            same in all of them.
        tables: where the memory tables lie.
        report: told how much of new table files is written.
    """

    def __init__(
        self,
        trial: TrialConfig,
        corpus: Corpus,
        folder: Path,
        device: torch.device,
        checkpoint_seconds: float = 120.0,
        initial: Mapping[str, Tensor] | None = None,
        processes: Processes = ALONE,
        tables: TablePlacement | None = None,
        report: Report | None = None,
    ) -> None:
        if (corpus.fingerprint, corpus.tokenizer_fingerprint) != (trial.corpus_fingerprint, trial.tokenizer_fingerprint):
            raise ValueError(f"trial {trial.id} wants corpus {trial.corpus_fingerprint}, this is {corpus.fingerprint}")
        check_processes(trial.model, trial.train, processes.count)
        self.trial, self.train, self.folder, self.device, self.processes = trial, trial.train, folder, device, processes
        self.checkpoint_seconds = checkpoint_seconds
        self.precision = resolve_precision(self.train.precision, device)
        self.tokenizer_json = (corpus.folder / "tokenizer.json").read_bytes()  # now: the cache may be gone when the trial ends
        self.placement = tables if tables is not None and trial.model.memory is not None else TablePlacement()
        if initial is not None and self.placement.kind == "disk":
            raise ValueError("a trial that starts from another's weights can't have its tables on disk")
        self.model = build_model(trial, corpus, device, tables_for(processes, self.placement, self.train))
        if initial is not None:
            self.model.load_state_dict(initial)
        self.optimizers = Optimizers(self.model, self.train, processes)
        placed = self.placement.kind != "process"
        placing = self.model, self.optimizers.rows, self.placement, folder, trial.id, self.train.table_format
        self.tables = PlacedTables(*placing) if placed else None
        self._coming: tuple[int, list[Part]] | None = None
        self.batches = TrainBatches(corpus.train, self.train.seq_len, self.train.batch_size, trial.seed)
        self.validator = Validator(corpus, self.train, processes)
        self.log_every = max(1, self.train.steps // CURVE_POINTS)
        self.validate_at = {round(self.train.steps * (i + 1) / self.train.n_validations) for i in range(self.train.n_validations)}
        self.state = _State()
        self.error: str | None = None
        self.validation: Validation | None = None
        self._pending: list[tuple[Tensor, Tensor]] = []  # loss and gradient norm of steps since the last curve point
        self._last_checkpoint = time.monotonic()
        self._slice: tuple[int, float] | None = None
        self._restore(report)

    @property
    def done(self) -> bool:
        return self.error is not None or (self.state.step >= self.train.steps and self.validation is not None)

    @property
    def table_cost(self) -> TableCost:
        """What tables elsewhere have cost this process so far."""
        return TableCost(0.0, None) if self.tables is None else self.tables.cost

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def advance(self, seconds: float) -> Progress:
        """Train for about `seconds`, or to the end; validates and checkpoints on the way."""
        started, first = time.monotonic(), self.state.step
        while not self.done and time.monotonic() - started < seconds:
            step_started = time.monotonic()
            if self.state.step < self.train.steps:
                self._step()
                self.state.train_s += time.monotonic() - step_started
            if self.error is None and self.state.step in self.validate_at:
                self._validate()
            self.state.wall_s += time.monotonic() - step_started
            self._checkpoint_if_due()
        elapsed = time.monotonic() - started
        if self.state.step > first:
            self._slice = (self.state.step - first, elapsed)
        losses = self.state.curve["train_loss"]
        speed = self._slice[0] * self.train.tokens_per_step / self._slice[1] if self._slice else None
        return Progress(self.state.step, self.train.steps, losses[-1] if losses else None, speed)

    def outcome(self) -> Outcome:
        """The finished trial's outcome; keeps the final model. Call once `done`, keep the outcome, then `discard_checkpoints`."""
        status = "diverged" if self.error else "finished"
        values: dict[str, Any] = {
            "wall_s": self.state.wall_s,
            "train_s": self.state.train_s,
            "tokens_per_s": self.state.step * self.train.tokens_per_step / self.state.wall_s,
            "n_restarts": self.state.n_restarts,
            "started_at": self.state.started_at,
            "precision": self.precision,
            "train_loss": self._tail("train_loss") if not self.error else None,
            "load_max_over_mean": self._tail("load_max_over_mean") if not self.error else None,
            "load_cv": self._tail("load_cv") if not self.error else None,
            "starved_experts": self._starved_experts() if not self.error else None,
        }
        if self.error is None:
            assert self.validation is not None
            values |= {
                "val_loss": self.validation.loss,
                "val_loss_se": self.validation.loss_se,
                "val_bpb": self.validation.bpb,
                "val_tokens": int(self.validation.documents["n_tokens"].sum()),
                "val_documents": len(self.validation.documents["document"]),
                "copy_loss": self.state.curve["copy_loss"][-1],
                "loss_by_position": self.validation.loss_by_position,
            }
            config = self.trial.model_dump(mode="json")
            streams = self.tables.streams() if self.tables is not None else {}
            shards.save_final(self.folder, self.model, config, self._json_state(), self.tokenizer_json, self.processes, streams)
        documents = self.validation.documents if self.validation and not self.error else None
        return Outcome(status, self.error, values, self.state.curve, documents)

    def close(self) -> None:
        """Let go of tables that lie elsewhere; what came after the last checkpoint is lost."""
        if self.tables is not None:
            self.tables.close()

    def discard_checkpoints(self) -> None:
        """Drop everything but the final model: only when the outcome is kept, so that a kill in between loses no work."""
        if self.processes.first:
            checkpoint.discard_steps(self.folder)

    def _step(self) -> None:
        parts = self._take_parts()
        loss = torch.zeros((), device=self.device)
        for number, (tokens, request) in enumerate(parts):
            if request is not None:
                request.fetch()
                if number == 0 and self.placement.prefetch and self.state.step + 1 < self.train.steps:
                    self._coming = self.state.step + 1, self._parts(self.state.step + 1)  # while this step computes
            part = tokens.to(self.device, non_blocking=True)  # [b, T + 1]
            with self.autocast():
                share = self.model.loss(part[:, :-1], part[:, 1:], request) * (len(part) / self.train.batch_size)
            share.backward()
            loss += share.detach()
        routers = list(self.model.routers())
        sum_step(self.model, [loss, *(router.load for router in routers)], self.processes)
        norm = self.optimizers.step(rate_factor(self.train, self.state.step))
        for router in routers:
            router.update_bias()
        self._pending.append((loss, norm))
        self.state.step += 1
        if self.state.step % self.log_every == 0 or self.state.step == self.train.steps:
            self._log()

    def _take_parts(self) -> "list[Part]":
        """The passes of this step; those that are on their way already, or begun now."""
        coming, self._coming = self._coming, None
        return coming[1] if coming is not None and coming[0] == self.state.step else self._parts(self.state.step)

    def _parts(self, step: int) -> "list[Part]":
        """The passes of a step: tokens int64 [b, T + 1] on the host, and the request for their memory rows."""
        batch = torch.from_numpy(share_of_batch(self.batches.batch(step), self.processes))  # [B / processes, T + 1]
        return [(part, self.model.request(part[:, :-1])) for part in batch.split(sequences_at_once(self.train))]

    def _log(self) -> None:
        """Add a curve point: means over the steps since the last one. The only place that waits for the device."""
        losses = torch.stack([loss for loss, _ in self._pending]).tolist()
        norms = torch.stack([norm for _, norm in self._pending]).tolist()
        self._pending.clear()
        if not all(map(math.isfinite, [*losses, *norms])):
            self.error = f"loss or gradient became NaN or infinite before step {self.state.step}"
            return
        mean = sum(losses) / len(losses)
        old = self.state.smoothed_loss
        self.state.smoothed_loss = mean if old is None else _SMOOTHING * old + (1 - _SMOOTHING) * mean
        limit = _EXPLODED * math.log(self.trial.model.vocab_size)
        if self.state.smoothed_loss > limit:
            self.error = f"training loss exploded to {self.state.smoothed_loss:.2f} nats before step {self.state.step} (limit {limit:.2f})"
        spread, variation = self._load_spread()
        point: Mapping[str, Any] = {
            "step": self.state.step,
            "tokens": self.state.step * self.train.tokens_per_step,
            "train_loss": mean,
            "learning_rate": rate_factor(self.train, self.state.step - 1) * self.train.learning_rate,
            "grad_norm": sum(norms) / len(norms),
            "load_max_over_mean": spread,
            "load_cv": variation,
            "val_loss": None,
            "copy_loss": None,
            "expert_loads": None,
        }
        for name, value in point.items():
            self.state.curve[name].append(value)

    def _load_spread(self) -> tuple[float, float]:
        """Expert loads since the last curve point: largest over mean in the worst layer, coefficient of variation over layers."""
        loads = [router.take_window_load() for router in self.model.routers()]
        if not loads:
            return 1.0, 0.0
        self.processes.sum(loads)
        counts = [load.long().tolist() for load in loads]
        before = self.state.expert_loads or [[0] * len(layer) for layer in counts]
        self.state.expert_loads = [[old + new for old, new in zip(*layers, strict=True)] for layers in zip(before, counts, strict=True)]
        worst = max(float(load.max() / load.mean()) for load in loads)
        return worst, sum(float(load.std(correction=0) / load.mean()) for load in loads) / len(loads)

    def _starved_experts(self) -> int:
        """Experts of all layers that no token was sent to in the last `TAIL_FRACTION` of the steps."""
        limit = max(1.0, TAIL_FRACTION * self.train.steps)
        return sum(int((router.idle_steps >= limit).sum()) for router in self.model.routers())

    def _validate(self) -> None:
        if self._pending:
            self._log()
        if self.error:
            return
        self.validation = self.validator.validate(self.model, self.autocast())
        self.state.curve["val_loss"][-1] = self.validation.loss
        self.state.curve["expert_loads"][-1] = self.state.expert_loads
        self.state.expert_loads = []
        self.state.curve["copy_loss"][-1] = self.validator.copy_loss(self.model, self.autocast())
        if self.state.step < self.train.steps:
            self.validation = None

    def _tail(self, column: str) -> float:
        """Mean of a curve column over the last `TAIL_FRACTION` of the steps, its last point at least."""
        steps, values = self.state.curve["step"], self.state.curve[column]
        first = self.train.steps * (1 - TAIL_FRACTION)
        tail = [v for s, v in zip(steps, values, strict=True) if s is not None and v is not None and s > first]
        return sum(tail) / len(tail)

    def _checkpoint_if_due(self) -> None:
        # Only between curve points: then nothing is pending and a resumed run goes exactly the same way.
        if self._pending or self.error or self.state.step >= self.train.steps:
            return
        due = time.monotonic() - self._last_checkpoint >= self.checkpoint_seconds
        if self.processes.of_first(due):
            if self.tables is not None:
                self.tables.flush()
            weights, optimizer = self.model.state_dict(), self.optimizers.state()
            shards.save_step(self.folder, self.state.step, weights, optimizer, self._json_state(), self.processes)
            if self.tables is not None:
                self.tables.committed(self.state.step)
            self._last_checkpoint = time.monotonic()

    def _json_state(self) -> dict[str, Any]:
        return vars(self.state) | {"steps": self.train.steps, "trial_id": self.trial.id, "tables": self.placement.kind}

    def _restore(self, report: Report | None) -> None:
        found = shards.load_step(self.folder, self.processes)
        if found is not None:
            self._check_placement(found[2].get("tables", "process"))
        if self.tables is not None:
            self.tables.open(0 if found is None else found[2]["step"], self.trial.seed, found is not None, report)
        if found is None:
            return
        weights, optimizer, state = found
        self.model.load_state_dict(weights)
        self.optimizers.load_state(optimizer)
        self.state = _State(**{name: state[name] for name in vars(self.state)})
        self.state.n_restarts += 1

    def _check_placement(self, was: str) -> None:
        """Tables in the process and on the host are kept alike; those on disk are not in the checkpoint."""
        now = self.placement.kind
        if (was == "disk") != (now == "disk"):
            raise UserError(
                f"trial {self.trial.id} was begun with tables '{was}' and can't go on with '{now}'; remove {self.folder} to train it anew"
            )


def build_model(trial: TrialConfig, corpus: Corpus, device: torch.device, make_tables: MakeTables = EmbeddingTables) -> Transformer:
    """The trial's model with its seed's initial weights, in training mode on `device`; its tables where they are to be made."""
    model = Transformer(trial.model, torch.from_numpy(np.array(corpus.compression)), corpus.end_of_text_id, make_tables)
    model.initialise(trial.seed)
    return model.to(device).train()
