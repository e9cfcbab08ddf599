"""`bench offload`, training: step time with the tables in host RAM and on disk over that with the tables in the process.

Each case is a process of its own, as a trial is, so that its peak of memory is its own; they take turns, and all but one sleep. What
counts begins when the caches are full of changed rows: from there on each row that is read has another one written first.
"""

import multiprocessing
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engram.accounting import count_parameters, table_rows
from engram.benchmarks.machine import Machine, free_bytes
from engram.benchmarks.offload import file_bytes, require_disk, with_rows
from engram.benchmarks.shapes import ENDLESS, steps
from engram.benchmarks.timing import Measured, Report, Turn, paired_interval
from engram.benchmarks.workers import end_with_parent
from engram.config import ModelConfig, TrialConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engram.memory.placement.engine import Traffic
from engram.memory.placement.settings import TablePlacement
from engram.training.placed_tables import TableCost
from engram.training_config import TrainConfig

if TYPE_CHECKING:
    from engram.training.loop import Trainer

PROCESS, HOST, DISK = "process", "host", "disk"
CPU = torch.device("cpu")
_START_S = 1800.0
"""Time that a case has to get ready: to write its tables"""
_ROOM = 0.7
"""Share of the free memory that tables in RAM may take"""
_PROCESS_BYTES = 1_000_000_000
"""Of a process beside its tables"""


@dataclass(frozen=True)
class TrainingSetup:
    """What is measured."""

    model: ModelConfig
    train: TrainConfig
    cache_share: float
    """Of the tables on disk, their optimiser state included, that the cache holds."""
    rounds: int
    seconds: float
    """Of a case, all rounds together"""
    folder: Path
    lengths: tuple[int, ...] = ()
    """Rows of further tables, each a case on disk with as large a cache."""

    @property
    def state_dim(self) -> int:
        """Numbers of optimiser state in a row."""
        assert self.model.memory is not None
        return 1 if self.train.table_optimizer == "adagrad" else 2 * self.model.memory.row_dim

    def table_bytes(self, model: ModelConfig) -> int:
        """RAM that the tables of a model take in training."""
        assert model.memory is not None
        return 4 * table_rows(model.memory) * (model.memory.row_dim + self.state_dim)


@dataclass(frozen=True)
class TrainingCase:
    """A place for the tables and what a step came to."""

    name: str
    rows: int
    step_s: Measured
    ratio: Measured | None
    """Step time over that with the tables in the process: median over the rounds and its 95 % interval; None for that one"""
    total_ratio: float | None
    """The same from the time of all rounds together"""
    wait_share: float
    """Share of its time for which steps waited for rows"""
    hit_rate: float | None
    rows_read_per_step: float | None
    rows_written_per_step: float | None
    peak_rss_bytes: int


@dataclass(frozen=True)
class TrainingSpeed:
    """What `measure_placed_training` found."""

    machine: Machine
    p_active: int
    table_bytes: int
    """With the optimiser state"""
    cache_bytes: int
    optimizer: str
    table_optimizer: str
    tokens_per_step: int
    rounds: int
    warm_up_steps: int
    """Of every case before what counts, at least: until the caches were full"""
    cases: list[TrainingCase]
    left_out: dict[str, str]


@dataclass(frozen=True)
class _GetReady:
    """Asks a case to build its model and to fill its cache."""

    steps: int
    """Of training, at least"""


@dataclass(frozen=True)
class _Reply:
    """What a case says after a turn."""

    step_s: float
    steps: int
    spent: TableCost
    peak_rss_bytes: int
    machine: Machine


def measure_placed_training(
    setup: TrainingSetup, corpus: Corpus, tell: Callable[[str], None], report: Report | None = None
) -> TrainingSpeed:
    """Measure whole optimiser steps of all cases, in turn.

    Args:
        setup: what is measured; its files are removed.
        corpus: what is trained on.
        tell: told in a line what disk it takes.
        report: told of the progress.
    """
    cache = max(1, int(setup.cache_share * setup.table_bytes(setup.model)))
    disk = TablePlacement(kind="disk", cache_bytes=cache)
    planned = {
        PROCESS: (setup.model, TablePlacement()),
        DISK: (setup.model, disk),
        "disk, no prefetch": (setup.model, disk.model_copy(update={"prefetch": False})),
        HOST: (setup.model, TablePlacement(kind="host")),
    }
    planned |= {f"disk, {length:.0e} rows": (with_rows(setup.model, length), disk) for length in setup.lengths}
    files = [file_bytes(model, "fp32", setup.state_dim) for model, place in planned.values() if place.kind == "disk"]
    require_disk(setup.folder, sum(files), tell)
    left_out: dict[str, str] = {}
    room = _ROOM * free_bytes(CPU)
    for name in (PROCESS, HOST):
        needed = setup.table_bytes(setup.model) + _PROCESS_BYTES
        if needed > room:
            left_out[name] = f"its tables take {needed / 1e9:.3g} GB beside the others, {room / 1e9:.3g} GB are left"
            del planned[name]
        else:
            room -= needed
    cases = {name: _Process(name, setup, model, placement, corpus) for name, (model, placement) in planned.items()}
    try:
        warm_up = 0
        for number, name in enumerate(sorted(cases, key=lambda name: name != DISK)):  # the others train as long as it takes there
            if report is not None:
                report("preparing tables", number, len(cases))
            warm_up = max(warm_up, cases[name].ready(warm_up))
        replies: dict[str, list[_Reply]] = {name: [] for name in cases}
        names = list(cases)
        for number in range(setup.rounds):
            if report is not None:
                report("measuring training", number, setup.rounds)
            for name in names if number % 2 else reversed(names):
                replies[name].append(cases[name].turn(setup.seconds / setup.rounds))
        if report is not None:
            report("measuring training", setup.rounds, setup.rounds)
    finally:
        for case in cases.values():
            case.end()
    return _result(setup, {name: model for name, (model, _) in planned.items()}, replies, cache, warm_up, left_out)


def _result(
    setup: TrainingSetup,
    models: dict[str, ModelConfig],
    replies: dict[str, list[_Reply]],
    cache: int,
    warm_up: int,
    left_out: dict[str, str],
) -> TrainingSpeed:
    base = [reply.step_s for reply in replies[PROCESS]] if PROCESS in replies else None
    cases = []
    for name, turns in replies.items():
        times = [turn.step_s for turn in turns]
        n_steps, seconds = sum(turn.steps for turn in turns), sum(turn.steps * turn.step_s for turn in turns)
        traffic = Traffic.sum(turn.spent.traffic for turn in turns)
        compared = base is not None and name != PROCESS
        memory = models[name].memory
        assert memory is not None
        cases.append(
            TrainingCase(
                name=name,
                rows=table_rows(memory),
                step_s=Measured.of(times),
                ratio=paired_interval(times, base) if base is not None and compared else None,
                total_ratio=sum(times) / sum(base) if base is not None and compared else None,
                wait_share=sum(turn.spent.wait_s for turn in turns) / seconds,
                hit_rate=None if traffic is None else traffic.hit_rate,
                rows_read_per_step=None if traffic is None else traffic.read / n_steps,
                rows_written_per_step=None if traffic is None else traffic.written / n_steps,
                peak_rss_bytes=turns[-1].peak_rss_bytes,
            )
        )
    first = next(iter(replies.values()))[0]
    return TrainingSpeed(
        machine=first.machine,
        p_active=count_parameters(setup.model).p_active,
        table_bytes=setup.table_bytes(setup.model),
        cache_bytes=cache,
        optimizer=setup.train.optimizer.kind,
        table_optimizer=setup.train.table_optimizer,
        tokens_per_step=setup.train.tokens_per_step,
        rounds=setup.rounds,
        warm_up_steps=warm_up,
        cases=cases,
        left_out=left_out,
    )


def endless(train: TrainConfig) -> TrainConfig:
    """Training that is stopped by the clock, with next to no learning rate."""
    return train.model_copy(update={"steps": ENDLESS, "n_validations": 1, "val_tokens": train.seq_len})


class _Process:
    """A case in a process of its own."""

    def __init__(self, name: str, setup: TrainingSetup, model: ModelConfig, placement: TablePlacement, corpus: Corpus) -> None:
        trial = TrialConfig(
            size="bench",
            rho=0.0,
            seed=0,
            budget_flops=1.0,
            model=model,
            train=endless(setup.train),
            corpus_fingerprint=corpus.fingerprint,
            tokenizer_fingerprint=corpus.tokenizer_fingerprint,
        )
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._folder = setup.folder / f"bench-offload-{name.replace(', ', '-').replace(' ', '-')}"
        arguments = (theirs, trial.model_dump_json(), corpus.folder, self._folder, placement)
        self._process = context.Process(target=_train, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def ready(self, steps: int) -> int:
        """Build the model and train until the caches are full, so many steps at least; returns how many there were."""
        return self._answer(_GetReady(steps), _START_S).steps

    def turn(self, seconds: float) -> _Reply:
        """Train for so many seconds, one step at least."""
        return self._answer(seconds, _START_S + 10 * seconds)

    def _answer(self, question: "_GetReady | float", patience_s: float) -> _Reply:
        """Raises what the process raised."""
        try:
            self._ours.send(question)
            reply: Any = self._ours.recv() if self._ours.poll(patience_s) else TimeoutError(f"{self.name} does not answer")
        except (EOFError, BrokenPipeError):
            why = "was ended, for want of memory probably; take a smaller --table"
            raise UserError(f"the process that trains with tables '{self.name}' {why}") from None
        if isinstance(reply, BaseException):
            raise reply
        assert isinstance(reply, _Reply)
        return reply

    def end(self) -> None:
        """Stop it and remove its files."""
        self._ours.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        shutil.rmtree(self._folder, ignore_errors=True)


def _train(pipe: Connection, trial_json: str, corpus_folder: Path, folder: Path, placement: TablePlacement) -> None:
    """In a process: train when told to, until the pipe is closed."""
    from engram.training.loop import Trainer
    from engram.training.machine import peak_rss_bytes, settle_process

    end_with_parent()
    trainer: Trainer | None = None
    try:
        settle_process(1)
        trial = TrialConfig.model_validate_json(trial_json)
        corpus = Corpus.open(corpus_folder)
        machine = Machine.of(trial.train, CPU)
        while True:
            asked: _GetReady | float = pipe.recv()
            if trainer is None:
                trainer = Trainer(trial, corpus, folder, CPU, float("inf"), tables=placement)
                turn = steps(trainer)
            first, before = trainer.state.step, trainer.table_cost
            step_s = _fill_cache(trainer, turn, asked.steps) if isinstance(asked, _GetReady) else turn(asked)
            done = trainer.state.step - first
            if trainer.tables is not None:  # the work of the last step's rows is not left to the next case
                started = time.perf_counter()
                trainer.tables.worker.drain()
                step_s += (time.perf_counter() - started) / done
            pipe.send(_Reply(step_s, done, trainer.table_cost.since(before), peak_rss_bytes(), machine))
    except EOFError:
        pass
    except BaseException as problem:
        pipe.send(problem)
    finally:
        if trainer is not None:
            trainer.close()


def _fill_cache(trainer: "Trainer", turn: Turn, at_least: int) -> float:
    """Train so many steps at least, and until a row had to make room for another one; returns the seconds of the last step."""
    step_s = turn(0.0)
    while trainer.state.step < at_least or _has_room(trainer):
        step_s = turn(0.0)
    return step_s


def _has_room(trainer: "Trainer") -> bool:
    """Whether the cache will be full at some time, and is not yet. It isn't to be when the text has been read once."""
    traffic = trainer.table_cost.traffic
    if trainer.tables is None or traffic is None or trainer.state.step * trainer.train.tokens_per_step >= len(trainer.batches.tokens):
        return False
    return trainer.tables.overflows and not traffic.written
