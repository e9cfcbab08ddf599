"""A trial in a process of its own, which trains in turns when it is told to."""

import multiprocessing
import shutil
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from engram.benchmarks.machine import this_machine
from engram.benchmarks.results import Machine
from engram.benchmarks.shapes import steps
from engram.benchmarks.timing import Turn
from engram.benchmarks.workers import end_with_parent
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engram.memory.placement.settings import TablePlacement
from engram.training.machine import peak_rss_bytes, settle_process
from engram.training.placed_tables import TableCost
from engram.training.trainer import Trainer

_CPU = torch.device("cpu")
_START_S = 1800.0
"""Time that a trial has to get ready: to write its tables."""


@dataclass(frozen=True)
class _GetReady:
    """Tells a process to build its model and to fill its cache."""

    steps: int
    """Steps to train, at least."""


@dataclass(frozen=True)
class Reply:
    """What a process says after a turn."""

    step_s: float
    steps: int
    spent: TableCost
    peak_rss_bytes: int
    machine: Machine


class TrialProcess:
    """A trial on one thread of the CPU, in a process of its own.

    Args:
        name: for messages.
        trial: what it trains.
        placement: where its tables lie.
        corpus: its text.
        folder: where its tables are written; removed by `end`.
    """

    def __init__(self, name: str, trial: TrialConfig, placement: TablePlacement, corpus: Corpus, folder: Path) -> None:
        self.name, self._folder = name, folder
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        arguments = (theirs, trial.model_dump_json(), corpus.folder, folder, placement)
        self._process = context.Process(target=_train, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def ready(self, steps: int) -> int:
        """Build the model and train at least `steps` steps, until the caches are full; returns how many there were."""
        return self._answer(_GetReady(steps), _START_S).steps

    def turn(self, seconds: float) -> Reply:
        """Train for about `seconds`, one step at least."""
        return self._answer(seconds, _START_S + 10 * seconds)

    def _answer(self, question: _GetReady | float, patience_s: float) -> Reply:
        """Raises what the process raised; UserError when it was killed."""
        try:
            self._ours.send(question)
            reply: Any = self._ours.recv() if self._ours.poll(patience_s) else TimeoutError(f"{self.name} does not answer")
        except (EOFError, BrokenPipeError):
            why = "was killed, probably for lack of memory; take a smaller table"
            raise UserError(f"the process that trains with tables '{self.name}' {why}") from None
        if isinstance(reply, BaseException):
            raise reply
        assert isinstance(reply, Reply)
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
    """In the process: train when told to, until the pipe is closed."""
    end_with_parent()
    trainer: Trainer | None = None
    try:
        settle_process(1, _CPU)
        trial = TrialConfig.model_validate_json(trial_json)
        corpus = Corpus.open(corpus_folder)
        machine = this_machine(trial.train, _CPU)
        while True:
            asked: _GetReady | float = pipe.recv()
            if trainer is None:
                trainer = Trainer(trial, corpus, folder, _CPU, float("inf"), tables=placement)
                turn = steps(trainer)
            first, before = trainer.state.step, trainer.table_cost
            step_s = _fill_cache(trainer, turn, asked.steps) if isinstance(asked, _GetReady) else turn(asked)
            done = trainer.state.step - first
            if trainer.tables is not None:  # the work on the last step's rows must not fall into another case's turn
                started = time.perf_counter()
                trainer.tables.worker.drain()
                step_s += (time.perf_counter() - started) / done
            pipe.send(Reply(step_s, done, trainer.table_cost.since(before), peak_rss_bytes(), machine))
    except EOFError:
        pass
    except BaseException as problem:
        pipe.send(problem)
    finally:
        if trainer is not None:
            trainer.close()


def _fill_cache(trainer: Trainer, turn: Turn, at_least: int) -> float:
    """Train at least `at_least` steps, and until a row has had to make room for another; returns the seconds of the last step."""
    step_s = turn(0.0)
    while trainer.state.step < at_least or _has_room(trainer):
        step_s = turn(0.0)
    return step_s


def _has_room(trainer: Trainer) -> bool:
    """Whether the cache is still filling up. Once the text has been read through, it won't fill any further."""
    traffic = trainer.table_cost.traffic
    if trainer.tables is None or traffic is None or trainer.state.step * trainer.train.tokens_per_step >= len(trainer.batches.tokens):
        return False
    return trainer.tables.overflows and not traffic.written
