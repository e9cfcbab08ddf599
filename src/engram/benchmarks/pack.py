"""How many trials pay side by side on one device: copies of one in processes of their own, as in a sweep, and what they reach together."""

import multiprocessing
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engram.benchmarks.machine import this_machine
from engram.benchmarks.results import Machine, Measured, Pack, PackedTrials
from engram.benchmarks.results.pack import worthwhile
from engram.benchmarks.shapes import ENDLESS, endless_trainer, steps
from engram.benchmarks.timing import Report
from engram.benchmarks.workers import end_with_parent
from engram.config.trial import TrialConfig
from engram.errors import UserError

_START_S = 300.0
"""Seconds that all copies have to get ready, including compiling kernels."""
_WARM_UP_S = 1.0
_STAGE = "training side by side"


class TrialCopies:
    """Copies of an endless trial, which train when they are told to; a context manager that ends them.

    All start at once; those that the device has no memory for are left out, as `problem` tells.

    Args:
        trial: what they train; its steps are not counted.
        corpus_folder: of its text.
        device: where, as for `--device`.
        count: copies.
    """

    def __init__(self, trial: TrialConfig, corpus_folder: Path, device: str, count: int) -> None:
        few = {"steps": ENDLESS, "n_validations": 1, "val_tokens": trial.train.seq_len}
        endless = trial.model_copy(update={"train": trial.train.model_copy(update=few)})
        context = multiprocessing.get_context("spawn")
        self.problem: str | None = None
        self.machine: Machine | None = None
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_train, args=(theirs, endless.model_dump_json(), corpus_folder, device), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()

    def ready(self) -> int:
        """Wait until all have taken their first steps; returns how many have."""
        alive = []
        for pipe in self._pipes:
            said = _answer(pipe, _START_S)
            if isinstance(said, Machine):
                self.machine = said
                alive.append(pipe)
            else:
                self.problem = said
                pipe.close()
        self._pipes = alive
        return len(alive)

    def turn(self, count: int, seconds: float) -> list[float] | None:
        """Train `count` copies at the same time; returns the tokens per second of each, None when one of them fails."""
        asked = self._pipes[:count]
        for pipe in asked:
            with suppress(OSError):  # it has died: its answer is missing
                pipe.send(seconds)
        answers = [_answer(pipe, _START_S + 10 * seconds) for pipe in asked]
        for said in answers:
            if not isinstance(said, float):
                self.problem = said
                return None
        return answers


def _answer(pipe: Connection, patience_s: float) -> Any:
    """What a process says, or in one line why it says nothing."""
    try:
        return pipe.recv() if pipe.poll(patience_s) else "it does not answer"
    except (EOFError, OSError):
        return "its process was killed, probably for lack of memory"


def _train(pipe: Connection, trial_json: str, corpus_folder: Path, device_name: str) -> None:
    """In a process: train for as many seconds as the pipe asks for, until it is closed."""
    end_with_parent()
    try:
        from engram.corpus.dataset import Corpus
        from engram.training.machine import resolve_device, settle_process

        device = resolve_device(device_name)
        settle_process(1, device)
        trainer = endless_trainer(TrialConfig.model_validate_json(trial_json), Corpus.open(corpus_folder), device)
        turn = steps(trainer)
        turn(_WARM_UP_S)
        pipe.send(this_machine(trainer.train, device))
        while True:
            pipe.send(trainer.train.tokens_per_step / turn(pipe.recv()))
    except EOFError:
        pass
    except Exception as problem:  # such as a device without room
        with suppress(OSError):
            pipe.send((str(problem).strip() or type(problem).__name__).splitlines()[0])


def measure_pack(
    trial: TrialConfig,
    corpus_folder: Path,
    device: str,
    counts: Sequence[int],
    seconds: float,
    rounds: int = 1,
    report: Report | None = None,
    *,
    until_flat: bool = False,
) -> Pack:
    """Train several numbers of copies of a trial, round by round.

    Args:
        trial: what they train; its steps are not counted.
        corpus_folder: of its text.
        device: where, as for `--device`.
        counts: numbers of copies.
        seconds: for each number, all rounds together.
        rounds: of the measurement.
        report: told of the progress.
        until_flat: leave out what is larger than a number that does not pay.

    Raises UserError when not even the smallest number trains.
    """
    wanted = sorted(set(counts))
    found: dict[int, list[list[float]]] = {count: [] for count in wanted}
    with TrialCopies(trial, corpus_folder, device, wanted[-1]) as copies:
        if report is not None:
            report("starting trials", 0, None)
        alive, done = copies.ready(), 0
        for number in range(rounds):
            for count in wanted if number % 2 == 0 else reversed(wanted):
                if count > alive:
                    continue
                if report is not None:
                    report(_STAGE, done, rounds * len(wanted))
                took = copies.turn(count, seconds / rounds)
                if took is None:
                    alive = count - 1
                    continue
                done += 1
                found[count].append(took)
                if until_flat and number == 0 and count > _best(found):
                    alive = count  # larger numbers are not tried any more
        if report is not None:
            report(_STAGE, rounds * len(wanted), rounds * len(wanted))
    packed = [
        PackedTrials(count, [Measured.of(one) for one in zip(*took, strict=True)], Measured.of([sum(each) for each in took]))
        for count, took in found.items()
        if took
    ]
    if not packed or copies.machine is None:
        raise UserError(f"trials of size {trial.size} don't train here: {copies.problem}")
    return Pack(copies.machine, trial.train.tokens_per_step, packed, mps_runs(), copies.problem)


def _best(found: dict[int, list[list[float]]]) -> int:
    """The number that pays so far, by the first round."""
    return worthwhile([(count, sum(took[0])) for count, took in found.items() if took])


def mps_runs() -> bool:
    """Whether NVIDIA's MPS serves this machine's GPUs: its daemon's pipe is where the driver looks for it."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps") / "control").exists()
