"""`bench sweep`: what a sweep costs beside its training steps, measured on a real one in a temporary folder."""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from engram.benchmarks.machine import Machine
from engram.benchmarks.shapes import STUDY, STUDY_LIKE
from engram.corpus.dataset import Corpus
from engram.ladder import size as ladder_size
from engram.training.machine import resolve_device
from engram.training_config import TrainConfig
from engramctl import console
from engramctl.commands.sweep import PROBE_BUDGET, PROBE_S, train_missing
from engramctl.expansion import expand, flops_per_step
from engramctl.results_options import DEFAULT_SWEEP
from engramctl.schedule import Event, Resources, measure_speeds, ray_session
from engramctl.store import Store
from engramctl.sweepfile import SweepSpec, deep_merge, find_sweep, load_sweep

NAME = "bench"
_CHECKPOINT_S = 60.0
"""The default of `engramctl sweep`"""
_STUDY_MODEL = {
    "attention": {"n_heads": STUDY.n_heads},
    "moe": {"expert_width": STUDY.expert_width, "top_k": STUDY.top_k, "shared_width": STUDY.shared_width},
}
"""What makes a study of the ladder's size of the same layers and width."""


@dataclass(frozen=True)
class SweepSpeed:
    """Where the workers' time of a sweep went; all but `wall_s` and `startup_s` are seconds of workers, summed."""

    machine: Machine
    workers: int
    trials: int
    steps: int
    """Of each trial"""
    tokens_per_s: float
    """Of all workers together, over the whole wall time"""
    wall_s: float
    """From before Ray starts to after the last row"""
    startup_s: float | None
    """Until the first training step of the first trial"""
    train_s: float
    """In optimiser steps (column `train_s`)"""
    validation_s: float
    """In validations: the rest of column `wall_s`"""
    waiting_s: float
    """Until each worker's first training step"""
    idle_end_s: float
    """After each worker's last trial, until the last row"""
    shutdown_s: float
    """From the last row until Ray has stopped; not in the wall time"""
    problems: list[str]
    """Trials that did not finish"""

    @property
    def efficiency(self) -> float:
        """Share of the workers' time that is optimiser steps."""
        return self.train_s / (self.workers * self.wall_s)

    @property
    def rest_s(self) -> float:
        """Checkpoints, rows, building models, waiting for the driver."""
        return self.workers * self.wall_s - self.train_s - self.validation_s - self.waiting_s - self.idle_end_s


@dataclass
class Watch:
    """Takes down when trials began and ended; times are of `time.monotonic`."""

    begun: dict[str, float] = field(default_factory=dict)
    """First training step by trial"""
    ended: dict[str, float] = field(default_factory=dict)

    def take(self, event: Event, tokens_per_step: int, now: float) -> None:
        """Take one event. The first report of a trial says how many steps it has made and at which speed: how long ago it began."""
        name, speed = event["trial_id"], event.get("tokens_per_s")
        if speed and name not in self.begun:
            self.begun[name] = now - event["step"] * tokens_per_step / speed
        if event["kind"] in ("ended", "error"):
            self.ended[name] = now

    def waiting(self, started: float, workers: int) -> float:
        """Seconds of workers before their first step."""
        return sum(begun - started for begun in sorted(self.begun.values())[:workers])

    def idle_end(self, workers: int) -> float:
        """Seconds of workers after their last trial."""
        last = sorted(self.ended.values())[-workers:]
        return sum(last[-1] - end for end in last) if last else 0.0


def bench_spec(size: str, rho: float, trials: int, changes: Mapping[str, Any]) -> SweepSpec:
    """The default sweep with `trials` seeds of one model; UserError like `load_sweep`."""
    axes: dict[str, Any] = {"rhos": [rho], "seeds": trials, "budgets": [f"{PROBE_BUDGET:g}"], "sizes": [size]}
    if size == STUDY.name:
        axes |= {"sizes": [STUDY_LIKE], "model": _STUDY_MODEL}
    return load_sweep(find_sweep(DEFAULT_SWEEP), deep_merge(axes, changes))


def measure_sweep(spec: SweepSpec, corpus: Corpus, resources: Resources, seconds: float) -> SweepSpeed:
    """Run `spec` with a budget that keeps each trial training for about `seconds`.

    Args:
        spec: of `bench_spec`; its budget is replaced.
        corpus: its prepared text.
        resources: this machine, with a number of workers.
        seconds: training time of a trial.
    """
    assert resources.workers is not None
    fingerprints = corpus.fingerprint, corpus.tokenizer_fingerprint
    probe = expand(spec, [PROBE_BUDGET], corpus.vocab_size, *fingerprints)[0]
    console.note("timing a few steps ...")
    with ray_session(resources):
        (speed,) = measure_speeds([probe], corpus.folder, resources, min(PROBE_S, seconds))
    steps = max(1, round(seconds / speed.step_s))
    # Half a step more, so that rounding down the steps of a budget gives these.
    budget = (steps + 0.5) * flops_per_step(spec, ladder_size(spec.sizes[0]), corpus.vocab_size)
    spec = spec.model_copy(update={"budgets": (repr(budget),)})
    watch = Watch()

    def on_event(event: Event) -> None:
        watch.take(event, probe.train.tokens_per_step, time.monotonic())

    with tempfile.TemporaryDirectory(prefix="engramctl-bench-") as folder:
        store = Store(Path(folder), NAME)
        with store.lock():
            started = time.monotonic()
            trials = train_missing(store, spec, corpus, {}, resources, _CHECKPOINT_S, on_event=on_event)
            stopped = time.monotonic()
        rows = store.read_trials()
    last = max(watch.ended.values(), default=stopped)
    unfinished = rows[rows["status"] != "finished"]
    problems = [f"{row['status']}: seed {row['seed']}: {str(row['error']).strip().splitlines()[-1]}" for _, row in unfinished.iterrows()]
    problems += [f"{len(trials) - len(rows)} trials have no row"] if len(rows) < len(trials) else []
    return SweepSpeed(
        machine=_machine(rows, resources, probe.train),
        workers=resources.workers,
        trials=len(trials),
        steps=trials[0].train.steps,
        tokens_per_s=float(rows.loc[rows["status"] == "finished", "tokens"].sum()) / (last - started),
        wall_s=last - started,
        startup_s=min(watch.begun.values()) - started if watch.begun else None,
        train_s=float(rows["train_s"].sum()),
        validation_s=float((rows["wall_s"] - rows["train_s"]).sum()),
        waiting_s=watch.waiting(started, resources.workers),
        idle_end_s=watch.idle_end(resources.workers),
        shutdown_s=stopped - last,
        problems=problems,
    )


def _machine(rows: pd.DataFrame, resources: Resources, train: TrainConfig) -> Machine:
    """This machine as the workers trained on it."""
    machine = replace(Machine.of(train, resolve_device(resources.device)), threads=1)
    return replace(machine, kernels=json.loads(rows["versions"].iloc[0])["kernels"]) if len(rows) else machine
