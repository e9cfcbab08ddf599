"""`bench sweep`: what a sweep costs on top of its training steps, measured on a real one in a temporary folder."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from engram.benchmarks.machine import this_machine
from engram.benchmarks.results import Machine
from engram.benchmarks.shapes import STUDY, STUDY_LIKE
from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.scaling.ladder import size as ladder_size
from engram.training.machine import resolve_device
from engramctl.cluster.events import ENDED, Event
from engramctl.cluster.session import Resources, ray_session
from engramctl.cluster.speeds import measure_speeds
from engramctl.present.format import last_line
from engramctl.results.defaults import DEFAULT_SWEEP
from engramctl.results.manifest import Manifest
from engramctl.results.store import Store
from engramctl.results.trial_table import finished
from engramctl.sweep.bench_result import SweepSpeed
from engramctl.sweep.build import expand, flops_per_step
from engramctl.sweep.files import find_sweep, load_sweep
from engramctl.sweep.overrides import deep_merge
from engramctl.sweep.run import PROBE_BUDGET, PROBE_S, Progress, SweepRun, Watcher, train_missing
from engramctl.sweep.spec import SweepSpec

NAME = "bench"
_CHECKPOINT_S = 60.0
"""The default of `engramctl sweep`"""
_STUDY_MODEL = {
    "attention": {"n_heads": STUDY.n_heads},
    "moe": {"expert_width": STUDY.expert_width, "top_k": STUDY.top_k, "shared_width": STUDY.shared_width},
}
"""What turns the ladder's size with the same layers and width into `study`."""


@dataclass
class TrialTimes:
    """Records when trials began and ended, on the clock of `time.monotonic`."""

    begun: dict[str, float] = field(default_factory=dict)
    """When each trial took its first training step, by id"""
    ended: dict[str, float] = field(default_factory=dict)
    """When each trial ended, by id"""

    def take(self, event: Event, tokens_per_step: int, now: float) -> None:
        """Take one event. A trial's first report tells its steps so far and its speed, and thereby how long ago it began."""
        if event.tokens_per_s and event.key not in self.begun:
            self.begun[event.key] = now - event.done * tokens_per_step / event.tokens_per_s
        if event.kind == ENDED:
            self.ended[event.key] = now

    def waiting(self, started: float, workers: int) -> float:
        """Worker seconds before the first step of each worker."""
        return sum(begun - started for begun in sorted(self.begun.values())[:workers])

    def idle_end(self, workers: int) -> float:
        """Worker seconds after the last trial of each worker."""
        last = sorted(self.ended.values())[-workers:]
        return sum(last[-1] - end for end in last) if last else 0.0


class _Timed:
    """A watcher that also records the times of trials."""

    def __init__(self, watcher: Watcher, times: TrialTimes, tokens_per_step: int) -> None:
        self.watcher, self.times, self.tokens_per_step = watcher, times, tokens_per_step

    def note(self, line: str) -> None:
        self.watcher.note(line)

    def stages(self) -> AbstractContextManager[Progress]:
        return self.watcher.stages()

    @contextmanager
    def trials(self, left: Sequence[TrialConfig], done: int) -> Iterator[Callable[[Event], None]]:
        with self.watcher.trials(left, done) as watch:

            def take(event: Event) -> None:
                watch(event)
                self.times.take(event, self.tokens_per_step, time.monotonic())

            yield take


def bench_spec(size: str, rho: float, trials: int, changes: Mapping[str, Any]) -> SweepSpec:
    """The default sweep, cut down to `trials` seeds of one model; UserError like `load_sweep`."""
    axes: dict[str, Any] = {"rhos": [rho], "seeds": trials, "budgets": [f"{PROBE_BUDGET:g}"], "sizes": [size]}
    if size == STUDY.name:
        axes |= {"sizes": [STUDY_LIKE], "model": _STUDY_MODEL}
    return load_sweep(find_sweep(DEFAULT_SWEEP), deep_merge(axes, changes))


def measure_sweep(spec: SweepSpec, corpus: Corpus, resources: Resources, seconds: float, watcher: Watcher) -> SweepSpeed:
    """Run `spec` with a budget that keeps each trial training for about `seconds`.

    Args:
        spec: from `bench_spec`; its budget is replaced.
        corpus: its prepared text.
        resources: this machine, with the number of workers given.
        seconds: training time of each trial.
        watcher: who follows the sweep.
    """
    assert resources.workers is not None
    fingerprints = corpus.fingerprint, corpus.tokenizer_fingerprint
    probe = expand(spec, [PROBE_BUDGET], corpus.vocab_size, *fingerprints)[0]
    watcher.note("timing a few steps ...")
    with ray_session(resources):
        (speed,) = measure_speeds([probe], corpus.folder, resources, min(PROBE_S, seconds))
    steps = max(1, round(seconds / speed.step_s))
    # Half a step more, so that rounding down to whole steps gives this number.
    budget = (steps + 0.5) * flops_per_step(spec, ladder_size(spec.sizes[0]), corpus.vocab_size)
    spec = spec.model_copy(update={"budgets": (repr(budget),)})
    times = TrialTimes()
    with tempfile.TemporaryDirectory(prefix="engramctl-bench-") as folder:
        store = Store(Path(folder), NAME)
        with store.lock():
            started = time.monotonic()
            timed = _Timed(watcher, times, probe.train.tokens_per_step)
            trials = train_missing(SweepRun(store, spec, resources, _CHECKPOINT_S, timed), corpus, Manifest())
            stopped = time.monotonic()
        rows = store.read_trials()
    last = max(times.ended.values(), default=stopped)
    done = finished(rows)
    problems = [f"{row['status']}: seed {row['seed']}: {last_line(row['error'])}" for _, row in rows.drop(done.index).iterrows()]
    problems += [f"{len(trials) - len(rows)} trials have no row"] if len(rows) < len(trials) else []
    return SweepSpeed(
        machine=_machine(rows, resources, probe.train),
        workers=resources.workers,
        trials=len(trials),
        steps=trials[0].train.steps,
        tokens_per_s=float(done["tokens"].sum()) / (last - started),
        wall_s=last - started,
        startup_s=min(times.begun.values()) - started if times.begun else None,
        train_s=float(rows["train_s"].sum()),
        validation_s=float((rows["wall_s"] - rows["train_s"]).sum()),
        waiting_s=times.waiting(started, resources.workers),
        idle_end_s=times.idle_end(resources.workers),
        shutdown_s=stopped - last,
        problems=problems,
    )


def _machine(rows: pd.DataFrame, resources: Resources, train: TrainConfig) -> Machine:
    """This machine, described as the workers trained on it."""
    machine = replace(this_machine(train, resolve_device(resources.device)), threads=1)
    return replace(machine, kernels=json.loads(rows["versions"].iloc[0])["kernels"]) if len(rows) else machine
