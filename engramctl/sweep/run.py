"""Carrying out a sweep: every trial that has no row yet is trained on Ray."""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus, TrainBatches, validation_windows
from engram.corpus.statistics import overlap, text_loss
from engram.errors import UserError
from engram.memory.placement.settings import TablePlacement
from engramctl.cluster.events import ENDED, RETRY, Event
from engramctl.cluster.private import remove_left_folders
from engramctl.cluster.session import Resources, cluster_workers, ray_session, trial_resources
from engramctl.cluster.shared_folder import require_shared
from engramctl.cluster.speeds import measure_speeds
from engramctl.present.format import counted, human
from engramctl.results import provenance
from engramctl.results.liveness import Process, RunningTrials
from engramctl.results.manifest import Manifest
from engramctl.results.rows.trials import SweepContext
from engramctl.results.store import Store
from engramctl.results.trial_table import FAILED
from engramctl.sweep.budget import fit_wall_time
from engramctl.sweep.build import expand
from engramctl.sweep.continuation import check_same_sweep, known_budget, updated_manifest, with_trials
from engramctl.sweep.devices import check_devices
from engramctl.sweep.kernels import compiling
from engramctl.sweep.room import room_note
from engramctl.sweep.spec import Budget, SweepSpec, budget_key, wall_seconds
from engramctl.sweep.workers import local_resources, side_by_side, within_memory

if TYPE_CHECKING:
    from engram.training.speed import Speed

PROBE_S = 4.0
"""Seconds for which a trial's steps are timed."""
PROBE_BUDGET = 1e30
"""Any budget that pays for a step will do: probes are stopped by the clock."""
_REPORT_S = 1.0

Progress = Callable[[str, int, int | None], None]
"""Called with a stage, how much of it is done, and of how much in all (None: unknown)."""


class Watcher(Protocol):
    """What follows a sweep, such as the terminal."""

    def note(self, line: str) -> None:
        """Take a line of news."""

    def stages(self) -> AbstractContextManager[Progress]:
        """Follow the stages of preparing a corpus, for the duration of a block."""

    def trials(self, left: Sequence[TrialConfig], done: int) -> AbstractContextManager[Callable[[Event], None]]:
        """Follow the training of the trials that are left, for the duration of a block; `done` others have a row already."""


@dataclass(frozen=True)
class SweepRun:
    """A sweep and how it is to be carried out."""

    store: Store
    spec: SweepSpec
    resources: Resources
    checkpoint_s: float
    """Seconds between checkpoints of a trial."""
    watcher: Watcher
    tables: TablePlacement = field(default_factory=TablePlacement)
    """Where the memory tables lie."""
    workers_given: bool = True
    """Whether somebody has asked for this number of workers."""
    kernels: "Future[tuple[str, ...]] | None" = None
    """Done when the kernels are compiled: lines about that, or a UserError when their disk is full."""

    def expand(self, budgets: Sequence[Budget], corpus: Corpus) -> list[TrialConfig]:
        """All trials of the sweep on its text."""
        return expand(self.spec, budgets, corpus.vocab_size, corpus.fingerprint, corpus.tokenizer_fingerprint)


def run_sweep(run: SweepRun, cache: Path) -> list[TrialConfig]:
    """Prepare the text and train every trial that has no row. Returns all trials of the sweep.

    Raises UserError when another process is running the sweep, the folder holds another experiment, or the sweep can't be run here.
    """
    remove_left_folders()  # also where nothing is left to train
    with run.store.lock():
        manifest = run.store.read_manifest() or Manifest()
        check_same_sweep(run.store, run.spec, manifest)
        if run.resources.address is None:
            given = run.resources.workers is not None
            run = replace(run, resources=local_resources(run), workers_given=given, kernels=compiling(run.resources.device))
        return train_missing(run, _prepared_corpus(run, manifest, cache), manifest)


def train_missing(run: SweepRun, corpus: Corpus, manifest: Manifest) -> list[TrialConfig]:
    """Train every trial of a sweep that has no row; the caller holds the store's lock. Returns all trials of the sweep.

    Args:
        run: the sweep.
        corpus: its prepared text.
        manifest: the sweep's manifest so far; an empty one on its first run.
    """
    for note in (text_loss(corpus), overlap(corpus)):
        if note is not None:
            run.watcher.note(note)
    manifest = updated_manifest(manifest, run.spec, corpus)
    known = [known_budget(run.spec, b, manifest) for b in run.spec.budgets]
    trials = [] if None in known else run.expand([b for b in known if b], corpus)
    if not trials or {trial.id for trial in trials} - run.store.finished_ids():
        check_devices(run.resources, run.store, trials)
        run = within_memory(run, trials or run.expand([PROBE_BUDGET], corpus))
        run = side_by_side(run, trials or run.expand([PROBE_BUDGET], corpus), corpus)
        left = [trial for trial in trials if trial.id not in run.store.finished_ids()]
        if note := room_note(run.store.folder, left):
            run.watcher.note(note)
        address = run.resources.address
        run.watcher.note(f"starting Ray {'at ' + address if address else 'on this machine'} ...")
        with ray_session(run.resources) as private_folder:
            if address:
                require_shared(address, run.store.folder, [corpus.folder])
            if not trials:
                budget = _timed_budget(run, corpus)
                manifest = manifest.model_copy(update={"budgets": manifest.budgets | {budget_key(run.spec, run.spec.budgets[0]): budget}})
                trials = run.expand([budget], corpus)
            _check_text(run, corpus, trials)
            run.store.write_manifest(with_trials(manifest, trials))
            if run.tables.kind == "disk":
                _check_disk(run, trials)
            _train(run, corpus, trials, private_folder)
    return trials


def longest_first(trials: Iterable[TrialConfig]) -> list[TrialConfig]:
    """Larger budgets first, otherwise in the given order, so that no worker is left alone with a long trial at the end."""
    return sorted(trials, key=lambda trial: -trial.budget_flops)


# Before Ray starts


def _prepared_corpus(run: SweepRun, manifest: Manifest, cache: Path) -> Corpus:
    """The corpus that the sweep started with if the cache still has it, so that installing a package changes nothing; else a new one."""
    from engram.corpus.prepare import prepare_corpus

    pinned = manifest.corpus
    if pinned and (folder := cache / "corpora" / pinned.folder).is_dir():
        return Corpus.open(folder)
    with run.watcher.stages() as progress:
        corpus = prepare_corpus(run.spec.corpus, cache, progress)
    if pinned and corpus.fingerprint != pinned.fingerprint:
        raise UserError(
            f"corpus {run.spec.corpus.source} is not the text that {run.store.folder} was made with (fingerprint"
            f" {corpus.fingerprint[:12]}, was {pinned.fingerprint[:12]}), or an earlier version divided it otherwise; choose another folder"
            " with --name"
        )
    return corpus


# On Ray


def _timed_budget(run: SweepRun, corpus: Corpus) -> float:
    """Time a few steps of the trials of each size that are likely slowest, and take the largest budget that fits the wall time."""
    text, resources = run.spec.budgets[0], run.resources
    seconds = wall_seconds(text)
    assert seconds is not None
    began = time.monotonic()
    trials = run.expand([PROBE_BUDGET], corpus)
    ends = _both_ends(trials)
    run.watcher.note(f"timing a few steps of {len(ends)} trials ...")
    speeds = measure_speeds(ends, corpus.folder, resources, PROBE_S)
    slowest: dict[str, Speed] = {}
    for trial, speed in zip(ends, speeds, strict=True):
        if trial.size not in slowest or speed.step_s > slowest[trial.size].step_s:
            slowest[trial.size] = speed
            variant = f" {trial.variant}" if trial.variant else ""
            tokens_per_s = human(trial.train.tokens_per_step / speed.step_s)
            run.watcher.note(f"  {trial.size}{variant} rho {trial.rho:.3g}: {tokens_per_s} tokens/s")
    left = seconds - (time.monotonic() - began)
    flops = fit_wall_time(left, trials, slowest, resources.workers or cluster_workers(resources))
    run.watcher.note(f"budget {text}: {flops:.2g} FLOPs a trial for {len(trials)} trials; kept with the sweep")
    return flops


def _both_ends(trials: Iterable[TrialConfig]) -> list[TrialConfig]:
    """For every size and variant the trials with most experts and with most memory: which is slower depends on the machine."""
    series: dict[tuple[str, str], list[TrialConfig]] = {}
    for trial in trials:
        if trial.seed == 0:
            series.setdefault((trial.size, trial.variant), []).append(trial)
    ends = [end for group in series.values() for end in (min(group, key=lambda t: t.rho), max(group, key=lambda t: t.rho))]
    return list({trial.id: trial for trial in ends}.values())


def _check_text(run: SweepRun, corpus: Corpus, trials: Sequence[TrialConfig]) -> None:
    """UserError when the text doesn't fill a sequence; a note when it will be read more than once."""
    for trial in {(t.train.seq_len, t.train.val_tokens): t for t in trials}.values():
        TrainBatches(corpus.train, trial.train.seq_len, trial.train.batch_size, trial.seed)
        validation_windows(corpus, trial.train.seq_len, trial.train.val_tokens)
    for trial in {(t.size, t.budget_flops): t for t in trials}.values():
        epochs = trial.train.tokens / len(corpus.train)
        if epochs > 1:
            run.watcher.note(
                f"size {trial.size} at {trial.budget_flops:.3g} FLOPs reads the {len(corpus.train):,} training tokens {epochs:.1f} times"
            )


def _check_disk(run: SweepRun, trials: Iterable[TrialConfig]) -> None:
    """Note how much disk the tables will take while their trials run; UserError if less is free."""
    from engram.training.placed_tables import training_bytes

    finished, folder = run.store.finished_ids(), run.store.folder
    sizes = sorted((training_bytes(t.model, t.train) for t in trials if t.id not in finished and t.model.memory), reverse=True)
    needed = sum(sizes[: run.resources.workers or cluster_workers(run.resources)])
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"tables on disk take up to {needed / 1e9:.3g} GB in {folder}, {free / 1e9:.3g} GB are free")
    if needed:
        run.watcher.note(f"tables on disk take up to {needed / 1e9:.3g} GB in {folder} while they train ({free / 1e9:.3g} GB are free)")


def _train(run: SweepRun, corpus: Corpus, trials: Sequence[TrialConfig], private_folder: Path | None) -> None:
    """Train the trials that have no row; UserError when the disk had no room even for the row of one that failed."""
    from engramctl.cluster.tune import run_trials
    from engramctl.cluster.worker import WorkerSettings

    finished = run.store.finished_ids()
    left = longest_first(trial for trial in trials if trial.id not in finished)
    wanted = trial_resources(run.resources)
    settings = WorkerSettings(
        results=run.store.results,
        corpus_folder=corpus.folder,
        corpus=run.spec.corpus,
        context=SweepContext(run.store.sweep, run.spec.corpus.source, provenance.git_sha()),
        device=run.resources.device,
        threads=int(wanted["cpu"]),
        report_s=_REPORT_S,
        checkpoint_s=run.checkpoint_s,
        driver=Process.this(),
        devices=run.resources.devices,
        resources=wanted,
        tables=run.tables,
        private_folder=private_folder,
    )
    failed: dict[str, str] = {}
    for line in run.kernels.result() if run.kernels is not None else ():
        run.watcher.note(line)
    with RunningTrials(run.store) as running, run.watcher.trials(left, len(trials) - len(left)) as watch:

        def tell(event: Event) -> None:
            # A trial that reports is running, whatever came before: there is no event when a process that died is back.
            running.note(event.key, runs=event.kind not in (ENDED, RETRY))
            if event.status == FAILED:
                failed[event.key] = event.error
            watch(event)

        run_trials(left, settings, run.resources, tell)
    lost = [key for key in failed if run.store.status(key) is None]
    if lost:
        again = "finished trials are kept, the same command trains the others once there is room"
        raise UserError(f"{counted(len(lost), 'trial')} failed without leaving a row in {run.store.folder}: {failed[lost[0]]}; {again}")
