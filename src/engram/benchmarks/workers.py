"""Several trainings side by side, each in a process of its own, as in a sweep."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

from engram.benchmarks.results import Measured, SideBySide
from engram.benchmarks.shapes import Setup, endless_trainer, steps
from engram.config.model import ModelConfig
from engram.config.trial import TrialConfig

_START_S = 300.0
"""Seconds that all copies have to get ready, including compiling the kernels."""
_WARM_UP_S = 1.5


def train_side_by_side(setup: Setup, model: ModelConfig, rho: float, workers: int, seconds: float, rounds: int) -> SideBySide:
    """Train `workers` copies of a model, on one core each; all begin each round together."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers)
    trial = setup.trial(model, rho).model_dump_json()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(barrier,)) as pool:
        arguments = (trial, setup.corpus.folder, str(setup.device), seconds, rounds)
        copies = [pool.submit(_train, *arguments) for _ in range(workers)]
        problems = [problem for copy in copies if (problem := copy.exception()) is not None]
        # A copy that fails breaks the barrier for the others, whose errors are not the cause.
        for problem in sorted(problems, key=lambda one: isinstance(one, BrokenBarrierError)):
            raise problem
        return SideBySide([Measured.of([setup.tokens_per_step / one for one in copy.result()]) for copy in copies])


_barrier: Barrier | None = None


def _begin(barrier: Barrier) -> None:
    """In a new process: keep the barrier, and end when the parent does."""
    global _barrier
    _barrier = barrier
    end_with_parent()


def end_with_parent() -> None:
    """In a new process: end when the parent does, for whatever reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _train(trial_json: str, corpus_folder: Path, device_name: str, seconds: float, rounds: int) -> list[float]:
    """Seconds per step, one number per round."""
    from engram.corpus.dataset import Corpus
    from engram.training.machine import resolve_device, settle_process

    barrier = _barrier
    assert barrier is not None
    try:
        device = resolve_device(device_name)
        settle_process(1, device)
        trainer = endless_trainer(TrialConfig.model_validate_json(trial_json), Corpus.open(corpus_folder), device)
        turn = steps(trainer)
        turn(min(_WARM_UP_S, seconds))
        found = []
        for _ in range(rounds):
            barrier.wait(_START_S)
            found.append(turn(seconds / rounds))
        return found
    except BaseException:
        barrier.abort()
        raise
