"""Trains one trial from its config to its outcome, continuing from its last checkpoint where there is one."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus, TrainBatches
from engram.errors import UserError
from engram.memory.placement.fetcher import Request
from engram.memory.placement.settings import TablePlacement
from engram.processes import ALONE, Processes
from engram.training.building import built_model
from engram.training.checkpoints import files, shards
from engram.training.curve import CURVE_POINTS, add_point, tail_mean
from engram.training.expert_loads import added_loads, load_spread, starved_experts
from engram.training.lr_schedule import rate_factor
from engram.training.machine import resolve_precision
from engram.training.optimizers.combined import Optimizers
from engram.training.placed_tables import PlacedTables, TableCost
from engram.training.replicas import check_processes, share_of_batch, tables_for
from engram.training.state import Outcome, Progress, TrainState
from engram.training.step import CapturedStep, DeviceStream, TrainStep, autocast, can_capture
from engram.training.validation import Validation, Validator, pass_tokens, sequences_at_once, windows_at_once

_EXPLODED = 1.25
"""A smoothed loss this many times the loss of a uniform guess counts as divergence."""
_SMOOTHING = 0.7
_TAILS = ("train_loss", "load_max_over_mean", "load_cv")
"""Curve columns whose tail means are values of the outcome."""

Part = tuple[Tensor, Request | None]
"""Tokens int64 [b, T + 1] of one pass, on the host, and the request for their memory rows."""


class Trainer:
    """Trains one trial in slices of time.

    Args:
        trial: what to train.
        corpus: the prepared corpus, with the fingerprints that the trial names.
        folder: of its checkpoints; training continues from the latest.
        device: where to train.
        checkpoint_seconds: time between checkpoints, at least.
        initial: weights of another trial to start from (`state_dict` of its model); None: those drawn from the trial's seed. Optimisers
            start afresh either way.
        processes: those that train the trial together. Each has a `Trainer` and calls it in the same way; all get the same results.
        tables: where the memory tables are kept; None: in the model.
        capture: whether steps on a GPU may be captured as a graph, which changes their speed only.

    Raises ValueError when the corpus is another one, UserError when the trial can't be trained in this way or continued from what is in
    `folder`.
    """

    def __init__(
        self,
        trial: TrialConfig,
        corpus: Corpus,
        folder: Path,
        device: torch.device,
        checkpoint_seconds: float = 120.0,
        *,
        initial: Mapping[str, Tensor] | None = None,
        processes: Processes = ALONE,
        tables: TablePlacement | None = None,
        capture: bool = True,
    ) -> None:
        if (corpus.fingerprint, corpus.tokenizer_fingerprint) != (trial.corpus_fingerprint, trial.tokenizer_fingerprint):
            raise ValueError(f"trial {trial.id} wants corpus {trial.corpus_fingerprint}, this is {corpus.fingerprint}")
        check_processes(trial.model, trial.train, processes.count)
        self.trial, self.train, self.folder, self.device, self.processes = trial, trial.train, folder, device, processes
        self.checkpoint_seconds = checkpoint_seconds
        self.precision = resolve_precision(self.train.precision, device)
        self.tokenizer_json = corpus.tokenizer_json
        self.placement = tables if tables is not None and trial.model.memory is not None else TablePlacement()
        if initial is not None and self.placement.kind == "disk":
            raise ValueError("a trial that starts from another's weights can't have its tables on disk")
        self.model = built_model(trial, corpus, device, tables_for(processes, self.placement, self.train))
        if initial is not None:
            self.model.load_state_dict(initial)
        self.optimizers = Optimizers(self.model, self.train, processes)
        self.tables: PlacedTables | None = None
        if self.placement.kind != "process":
            self.tables = PlacedTables(self.model, self.optimizers.rows, self.placement, folder, trial.id, self.train.table_format)
        self._coming: tuple[int, list[Part]] | None = None
        self.batches = TrainBatches(corpus.train, self.train.seq_len, self.train.batch_size, trial.seed)
        at_once = pass_tokens(trial.model, device)
        self.at_once = sequences_at_once(self.train, at_once)
        validated = windows_at_once(self.train.seq_len, at_once) if device.type == "cuda" else self.at_once
        self.validator = Validator(corpus, self.train, processes, validated)
        self.train_step = TrainStep(self.model, self.optimizers, self.train.batch_size, self.precision, processes)
        self.captured: CapturedStep | None = None
        if capture and can_capture(self.model, processes, placed=self.tables is not None):
            self.captured = CapturedStep(self.train_step, (self.train.batch_size, self.train.seq_len + 1), self.at_once)
        self._stream = DeviceStream(device)
        self.log_every = max(1, self.train.steps // CURVE_POINTS)
        self.validate_at = {round(self.train.steps * (i + 1) / self.train.n_validations) for i in range(self.train.n_validations)}
        self.state = TrainState()
        self.error: str | None = None
        self.validation: Validation | None = None
        self._pending: list[Tensor] = []  # loss and gradient norm, [2], of steps since the last curve point
        self._last_checkpoint = time.monotonic()
        self._slice: tuple[int, float] | None = None
        self._notes: list[str] = []
        self._restore()

    @property
    def done(self) -> bool:
        return self.error is not None or (self.state.step >= self.train.steps and self.validation is not None)

    @property
    def table_cost(self) -> TableCost:
        """What tables outside the model have cost this process so far."""
        return TableCost(0.0, None) if self.tables is None else self.tables.cost

    def autocast(self) -> torch.autocast:
        """The autocast of training and validation."""
        return autocast(self.device, self.precision)

    def advance(self, seconds: float) -> Progress:
        """Train for about `seconds`, or to the end, validating and writing checkpoints on the way."""
        with self._stream():
            progress = self._advance(seconds)
        self._stream.join()
        return progress

    def _advance(self, seconds: float) -> Progress:
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
        return Progress(self.state.step, self.train.steps, losses[-1] if losses else None, speed, "; ".join(self._notes))

    def outcome(self) -> Outcome:
        """Save the final model and return the outcome. To be called once `done`; save the outcome, then call `discard_checkpoints`."""
        status = "diverged" if self.error else "finished"
        values: dict[str, Any] = {
            "wall_s": self.state.wall_s,
            "train_s": self.state.train_s,
            "tokens_per_s": self.state.step * self.train.tokens_per_step / self.state.wall_s,
            "n_restarts": self.state.n_restarts,
            "started_at": self.state.started_at,
            "precision": self.precision,
            **{name: None if self.error else tail_mean(self.state.curve, name, self.train.steps) for name in _TAILS},
            "starved_experts": None if self.error else starved_experts(self.model, self.train.steps),
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
        """Release tables outside the model; what came after the last checkpoint is lost."""
        if self.tables is not None:
            self.tables.close()

    def discard_checkpoints(self) -> None:
        """Remove everything but the final model. Only call this once the outcome is saved, so that a kill in between loses no work."""
        if self.processes.first:
            files.discard_steps(self.folder)

    def _step(self) -> None:
        scalars = self.optimizers.prepare(rate_factor(self.train, self.state.step))
        if self.captured is not None:
            done = self.captured.run(self.batches.batch(self.state.step), scalars)
        else:
            done = self.train_step.run(self._passes(), scalars)
        self._pending.append(done)
        self.state.step += 1
        if self.state.step % self.log_every == 0 or self.state.step == self.train.steps:
            self._log()

    def _passes(self) -> Iterator[Part]:
        """The passes of this step on the device, one after another, with their memory rows there."""
        for number, (tokens, request) in enumerate(self._take_parts()):
            if request is not None:
                request.fetch()
                if number == 0 and self.placement.prefetch and self.state.step + 1 < self.train.steps:
                    self._coming = self.state.step + 1, self._parts(self.state.step + 1)  # while this step computes
            yield tokens.to(self.device, non_blocking=True), request  # [b, T + 1]

    def _take_parts(self) -> list[Part]:
        """The passes of this step: those prepared during the last one, or new ones."""
        coming, self._coming = self._coming, None
        return coming[1] if coming is not None and coming[0] == self.state.step else self._parts(self.state.step)

    def _parts(self, step: int) -> list[Part]:
        """The passes of a step, with the request for their memory rows begun."""
        batch = torch.from_numpy(share_of_batch(self.batches.batch(step), self.processes))  # [B / processes, T + 1]
        return [(part, self.model.request(part[:, :-1])) for part in batch.split(self.at_once)]

    def _log(self) -> None:
        """Add a curve point: means over the steps since the last one. Nothing else waits for the device."""
        losses, norms = torch.stack(self._pending).t().tolist()
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
        loads = [router.take_window_load() for router in self.model.routers()]
        self.processes.sum(loads)
        self.state.expert_loads = added_loads(self.state.expert_loads, loads)
        spread, variation = load_spread(loads)
        add_point(
            self.state.curve,
            step=self.state.step,
            tokens=self.state.step * self.train.tokens_per_step,
            train_loss=mean,
            learning_rate=rate_factor(self.train, self.state.step - 1) * self.train.learning_rate,
            grad_norm=sum(norms) / len(norms),
            load_max_over_mean=spread,
            load_cv=variation,
        )

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

    def _restore(self) -> None:
        found = shards.load_step(self.folder, self.processes, self._notes.append)
        if found is not None:
            self._check_placement(found[2].get("tables", "process"))
        if self.tables is not None:
            self.tables.open(0 if found is None else found[2]["step"], self.trial.seed, found is not None)
        if found is None:
            return
        weights, optimizer, state = found
        self.model.load_state_dict(weights)
        self.optimizers.load_state(optimizer)
        self.state = TrainState(**{name: state[name] for name in vars(self.state)})
        self.state.n_restarts += 1

    def _check_placement(self, was: str) -> None:
        """Checkpoints hold tables of the process and of the host alike; tables on disk are not in them."""
        now = self.placement.kind
        if (was == "disk") != (now == "disk"):
            raise UserError(
                f"trial {self.trial.id} was begun with tables '{was}' and can't go on with '{now}'; remove {self.folder} to train it anew"
            )
