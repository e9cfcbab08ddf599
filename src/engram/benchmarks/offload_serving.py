"""Inference with tables elsewhere: throughput with the tables in RAM and on disk over that of the same model without a table.

The protocol is that of the paper's Table 4 (6.4): sequences of real text of 100 to 1024 tokens, one memory layer, the second. All
cases share the same dense weights in one process and take turns, pass by pass: a round is a pass, seconds long, so that a machine
that is slow for a while is slow for all of them.
"""

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from engram.benchmarks.machine import free_bytes, this_machine
from engram.benchmarks.offload import file_bytes, generated_file, generated_ram, require_disk, with_rows
from engram.benchmarks.offload_models import ModelsInPlaces, PlacedModel
from engram.benchmarks.offload_text import Pass, passes, sequences
from engram.benchmarks.results import NO_TABLE, Measured, ServingCase, ServingSpeed
from engram.benchmarks.timing import Report, paired_interval
from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.corpus.dataset import Corpus
from engram.memory.placement.disk import DiskRows
from engram.memory.placement.formats import FORMATS
from engram.scaling.accounting import count_parameters, table_rows

_NO_MEMORY, _RAM = "no memory", "RAM"
_ROOM = 0.8
"""Share of the free memory that the table in RAM may take."""
_CPU = torch.device("cpu")
_DISK_CASES = (("", True, True), (", cold", False, True), (", no prefetch", True, False))
"""What is added to a case's name, whether its cache is warm, and whether it prefetches."""


@dataclass(frozen=True)
class ServingSetup:
    """What is measured."""

    model: ModelConfig
    row_format: str
    caches: tuple[int, ...]
    """Bytes of RAM for hot rows, each a case; the first also cold, and without prefetch."""
    sequences: int
    folder: Path
    brief: bool = False
    """Leave out the cases that only explain: no memory at all, a cold cache, no prefetch."""
    lengths: tuple[int, ...] = ()
    """Rows of further tables, each a case on disk with the first of the caches: what does length cost?"""
    seed: int = 0


@dataclass
class _Cases:
    """The cases that are measured, and what they leave behind."""

    models: dict[str, PlacedModel] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def close(self) -> None:
        """Let go of all tables and remove their files."""
        for model in self.models.values():
            if model.served is not None:
                model.served.close()
        self.models.clear()
        gc.collect()
        for file in self.files:
            file.unlink(missing_ok=True)


@torch.no_grad()
def measure_serving(setup: ServingSetup, corpus: Corpus, tell: Callable[[str], None], report: Report | None = None) -> ServingSpeed:
    """Measure all cases, in turn over the same sequences.

    Args:
        setup: what is measured; its files are removed at the end.
        corpus: whose training text is read.
        tell: told in a line how much disk it takes.
        report: told of the progress.

    Raises UserError when the disk or the text is too small.
    """
    longer = {length: with_rows(setup.model, length) for length in setup.lengths}
    on_disk = file_bytes(setup.model, setup.row_format)
    require_disk(setup.folder, on_disk + sum(file_bytes(model, setup.row_format) for model in longer.values()), tell)
    batches = list(passes(sequences(corpus, setup.sequences, setup.seed)))
    np.random.default_rng([setup.seed, 1]).shuffle(batches)  # so that short and long ones are spread evenly over time
    cases = _Cases()
    try:
        _prepare(cases, setup, longer, corpus, report)
        _measure(cases.models, batches, report)
        return _result(setup, cases, batches, on_disk)
    finally:
        cases.close()


def _prepare(cases: _Cases, setup: ServingSetup, longer: dict[int, ModelConfig], corpus: Corpus, report: Report | None) -> None:
    """Write the tables and add the cases to `cases` as they come, so that those there are closed if a later one fails."""
    path = setup.folder / "bench-offload.rows"
    cases.files.append(path)
    spec = generated_file(path, setup.model, setup.row_format, report)
    make = ModelsInPlaces(setup.model, corpus, setup.seed)
    if not setup.brief:
        cases.models[_NO_MEMORY] = make.without_memory()
    cases.models[NO_TABLE] = make.without_table()
    ram = spec.rows * spec.payload
    if ram > _ROOM * free_bytes(_CPU):
        cases.left_out[_RAM] = f"the table takes {ram / 1e9:.3g} GB, {free_bytes(_CPU) / 1e9:.3g} GB are free"
    else:
        cases.models[_RAM] = make.over(generated_ram(setup.model, setup.row_format))
    for number, cache in enumerate(setup.caches):
        for extra, warm, prefetch in _DISK_CASES:
            if not extra or (number == 0 and not setup.brief):
                case = make.over(DiskRows(path, spec, cache), prefetch, cold=not warm)
                cases.models[f"disk, {cache / 2**20:.3g} MiB{extra}"] = case
                if warm:
                    case.warm(corpus, report)
    for length, model in longer.items():
        file = setup.folder / f"bench-offload-{length}.rows"
        cases.files.append(file)
        rows = DiskRows(file, generated_file(file, model, setup.row_format, report), setup.caches[0])
        case = cases.models[f"disk, {length:.0e} rows"] = make.over(rows, memory=model.memory)
        case.warm(corpus, report)


def _measure(models: dict[str, PlacedModel], batches: list[Pass], report: Report | None) -> None:
    for case in models.values():
        if not case.cold:  # the others have warmed up the dense weights, and this one's cache must be empty
            case.turn(batches[-1], batches[0])
        case.begin()
    names = list(models)
    for number, batch in enumerate(batches):
        if report is not None:
            report("measuring inference", number, len(batches))
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            models[name].times.append(models[name].turn(batch, batches[(number + 1) % len(batches)]))
    if report is not None:
        report("measuring inference", len(batches), len(batches))


def _result(setup: ServingSetup, cases: _Cases, batches: list[Pass], on_disk: int) -> ServingSpeed:
    assert setup.model.memory is not None
    tokens = [int(lengths.sum()) for _, lengths in batches]
    base = cases.models[NO_TABLE].times
    found = []
    for name, case in cases.models.items():
        traffic = case.traffic
        found.append(
            ServingCase(
                name=name,
                tokens_per_s=Measured.of([n / s for n, s in zip(tokens, case.times, strict=True)]),
                ratio=None if name == NO_TABLE else paired_interval(base, case.times),
                total_ratio=None if name == NO_TABLE else sum(base) / sum(case.times),
                wait_share=case.wait_s / sum(case.times),
                cpu_share=case.cpu_s / sum(case.times) / (os.cpu_count() or 1),
                hit_rate=None if traffic is None else traffic.hit_rate,
                reads_per_token=None if traffic is None else traffic.read / sum(tokens),
                rows=None if case.served is None or case.lookup is None else table_rows(case.lookup.memory),
            )
        )
    rows, row_dim = table_rows(setup.model.memory), setup.model.memory.row_dim
    return ServingSpeed(
        machine=this_machine(TrainConfig(steps=1, batch_size=1, seq_len=8, learning_rate=1, precision="fp32"), _CPU),
        p_active=count_parameters(setup.model).p_active,
        rows=rows,
        row_format=setup.row_format,
        table_bytes=rows * FORMATS[setup.row_format].row_bytes(row_dim),
        file_bytes=on_disk,
        sequences=setup.sequences,
        tokens=sum(tokens),
        rounds=len(batches),
        cases=found,
        left_out=cases.left_out,
    )
