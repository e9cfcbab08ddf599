"""Training with tables elsewhere: step time with the tables in host RAM and on disk over that with the tables in the process.

Each case is a process of its own, as a trial is, so that each has its own peak of memory; they take turns, and all but one sleep.
Measuring begins when the caches are full of changed rows: from then on, every row that is read has another one written first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engram.benchmarks.machine import free_bytes
from engram.benchmarks.offload import file_bytes, require_disk, with_rows
from engram.benchmarks.offload_process import Reply, TrialProcess
from engram.benchmarks.results import PROCESS, Measured, TrainingCase, TrainingSpeed
from engram.benchmarks.shapes import ENDLESS
from engram.benchmarks.timing import Report, paired_interval
from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.memory.placement.engine import Traffic
from engram.memory.placement.settings import TablePlacement
from engram.scaling.accounting import count_parameters, table_rows

_HOST, _DISK = "host", "disk"
_ROOM = 0.7
"""Share of the free memory that tables in RAM may take."""
_PROCESS_BYTES = 1_000_000_000
"""Memory of a process besides its tables."""


@dataclass(frozen=True)
class TrainingSetup:
    """What is measured."""

    model: ModelConfig
    train: TrainConfig
    cache_share: float
    """Share of the tables on disk, optimiser state included, that the cache holds."""
    rounds: int
    seconds: float
    """Time of each case, all rounds together."""
    folder: Path
    lengths: tuple[int, ...] = ()
    """Rows of further tables, each a case on disk with a cache of the same size."""

    @property
    def state_dim(self) -> int:
        """Numbers of optimiser state kept for a row."""
        assert self.model.memory is not None
        return 1 if self.train.table_optimizer == "adagrad" else 2 * self.model.memory.row_dim

    def table_bytes(self, model: ModelConfig) -> int:
        """Bytes of RAM that the tables of a model take in training, optimiser state included."""
        assert model.memory is not None
        return 4 * table_rows(model.memory) * (model.memory.row_dim + self.state_dim)


def measure_placed_training(
    setup: TrainingSetup, corpus: Corpus, tell: Callable[[str], None], report: Report | None = None
) -> TrainingSpeed:
    """Measure whole optimiser steps of all cases, in turn.

    Args:
        setup: what is measured; its files are removed at the end.
        corpus: what is trained on.
        tell: told in a line how much disk it takes.
        report: told of the progress.

    Raises UserError when the disk is too small or a process is killed.
    """
    cache = max(1, int(setup.cache_share * setup.table_bytes(setup.model)))
    disk = TablePlacement(kind="disk", cache_bytes=cache)
    planned = {
        PROCESS: (setup.model, TablePlacement()),
        _DISK: (setup.model, disk),
        "disk, no prefetch": (setup.model, disk.model_copy(update={"prefetch": False})),
        _HOST: (setup.model, TablePlacement(kind="host")),
    }
    planned |= {f"disk, {length:.0e} rows": (with_rows(setup.model, length), disk) for length in setup.lengths}
    files = [file_bytes(model, "fp32", setup.state_dim) for model, place in planned.values() if place.kind == "disk"]
    require_disk(setup.folder, sum(files), tell)
    left_out: dict[str, str] = {}
    room = _ROOM * free_bytes(torch.device("cpu"))
    for name in (PROCESS, _HOST):
        needed = setup.table_bytes(setup.model) + _PROCESS_BYTES
        if needed > room:
            left_out[name] = f"its tables take {needed / 1e9:.3g} GB beside the others, {room / 1e9:.3g} GB are left"
            del planned[name]
        else:
            room -= needed
    cases = {name: _start(name, setup, model, placement, corpus) for name, (model, placement) in planned.items()}
    try:
        warm_up = 0
        for number, name in enumerate(sorted(cases, key=lambda name: name != _DISK)):  # the others train as many steps as it needs
            if report is not None:
                report("preparing tables", number, len(cases))
            warm_up = max(warm_up, cases[name].ready(warm_up))
        replies: dict[str, list[Reply]] = {name: [] for name in cases}
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
    models = {name: model for name, (model, _) in planned.items()}
    return _result(setup, models, replies, cache, warm_up, left_out)


def _result(
    setup: TrainingSetup,
    models: dict[str, ModelConfig],
    replies: dict[str, list[Reply]],
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


def _start(name: str, setup: TrainingSetup, model: ModelConfig, placement: TablePlacement, corpus: Corpus) -> TrialProcess:
    trial = TrialConfig(
        size="bench",
        rho=0.0,
        seed=0,
        budget_flops=1.0,
        model=model,
        train=endless(setup.train),
        **corpus.fingerprints,
    )
    folder = setup.folder / f"bench-offload-{name.replace(', ', '-').replace(' ', '-')}"
    return TrialProcess(name, trial, placement, corpus, folder)
