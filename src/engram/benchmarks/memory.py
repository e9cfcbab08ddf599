"""What a training step costs with more memory in place of experts, and with longer tables."""

import torch

from engram.benchmarks.machine import free_bytes, this_machine
from engram.benchmarks.results import Measured, MemoryCase, MemorySpeed
from engram.benchmarks.shapes import Setup, steps, with_longer_tables
from engram.benchmarks.timing import Case, Report, interleave, paired_ratio
from engram.config.model import ModelConfig
from engram.history import History
from engram.scaling.accounting import count_parameters, table_rows
from engram.training.trainer import Trainer

RHOS = (1.0, 0.75, 0.25)
"""Models of equal P_total and P_active; the others are compared with the first."""
FACTORS = (16, 256)
"""Rows of the longer tables as multiples of those at `LONGER_RHO`."""
LONGER_RHO = 0.75
_TABLE_BYTES = 12
"""Bytes per number in a table, with its two moments, fp32 each."""
_ROOM = 0.9
"""Share of the free memory that tables may take."""


def measure_memory(setup: Setup, seconds: float, rounds: int, report: Report | None = None, room_bytes: int | None = None) -> MemorySpeed:
    """Measure whole steps of all cases, interleaved.

    Args:
        setup: size, optimiser, text, device.
        seconds: time for each case.
        rounds: of the measurement.
        report: told of the progress.
        room_bytes: memory that the tables may take; None: most of what is free.
    """
    room = int(_ROOM * free_bytes(setup.device)) if room_bytes is None else room_bytes
    models: dict[str, tuple[ModelConfig, float, int, str | None]] = {}
    left_out: dict[str, str] = {}
    first, base = _rho_name(RHOS[0]), _rho_name(LONGER_RHO)
    for rho in RHOS:
        models[_rho_name(rho)] = (setup.sparse(rho), rho, 1, None if rho == RHOS[0] else first)
    for factor in FACTORS:
        name, longer = f"tables x {factor}", with_longer_tables(models[base][0], factor)
        if _table_bytes(longer) > room:
            left_out[name] = f"its tables take {_table_bytes(longer) / 1e9:.2g} GB with their moments, {room / 1e9:.2g} GB are left"
        else:
            models[name] = (longer, LONGER_RHO, factor, base)
            room -= _table_bytes(longer)
    trainers = {name: setup.trainer(model, rho) for name, (model, rho, _, _) in models.items()}
    touched = {name: rows_of_a_step(trainer) for name, trainer in trainers.items()}
    times = interleave({name: Case(steps(trainer)) for name, trainer in trainers.items()}, rounds, seconds, report)
    cases = []
    for name, (model, rho, factor, against) in models.items():
        counts = count_parameters(model)
        cases.append(
            MemoryCase(
                name=name,
                rho=rho,
                table_factor=factor,
                rows=table_rows(model.memory) if model.memory else 0,
                table_bytes=_table_bytes(model),
                p_total=counts.p_total,
                p_active=counts.p_active,
                reads=touched[name][0],
                distinct_rows=touched[name][1],
                step_s=Measured.of(times[name]),
                against=against,
                ratio=None if against is None else paired_ratio(times[name], times[against]),
            )
        )
    return MemorySpeed(this_machine(setup.train, setup.device), setup.tokens_per_step, cases, left_out)


def _rho_name(rho: float) -> str:
    return f"rho {rho:g}"


def _table_bytes(model: ModelConfig) -> int:
    return _TABLE_BYTES * count_parameters(model).memory_tables


def rows_of_a_step(trainer: Trainer) -> tuple[int, int]:
    """Number of table rows that the first batch reads, and how many of them are distinct, over all tables."""
    lookup = trainer.model.lookup
    if lookup is None:
        return 0, 0
    batch = torch.from_numpy(trainer.batches.batch(0)).to(trainer.device)
    indices = lookup.hash(lookup.compression[batch[:, :-1]], History())  # [sets, B, T, H]
    distinct = sum(len(torch.unique(index + table.offsets)) for index, table in zip(indices, trainer.model.tables(), strict=True))
    return indices.numel(), distinct
