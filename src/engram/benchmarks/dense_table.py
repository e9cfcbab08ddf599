"""Two ways to keep and train a table: dense, as the public Engram module does, and by row."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from engram.benchmarks.machine import free_bytes
from engram.benchmarks.results import Measured, TableSpeed
from engram.benchmarks.shapes import Setup, memory_with_rows
from engram.benchmarks.timing import Case, Report, calls, interleave, paired_ratio
from engram.corpus.dataset import TrainBatches
from engram.errors import UserError
from engram.history import History
from engram.memory.designs.base import Memory
from engram.memory.lookup import MemoryLookup
from engram.memory.tables import EmbeddingTables
from engram.scaling.accounting import table_rows
from engram.training.optimizers.row_optimizer import AdamRows, RowOptimizer
from engram.training.optimizers.scalars import step_scalars

BATCHES = 64
"""Real batches that the steps cycle through: the rows of a single one would stay in the CPU's cache."""
_RATE = 1e-6
_BETAS = (0.9, 0.95)
_DENSE_NUMBERS = 4
"""Weight, gradient and two moments."""
_ROW_NUMBERS = 3
"""Weight and two moments."""


def measure_tables(setup: Setup, memory: Memory, rows: int, seconds: float, rounds: int, report: Report | None = None) -> TableSpeed:
    """Compare both ways in fp32 on the same indices and gradients.

    Args:
        setup: text, batch and device.
        memory: the design; its tables get `rows` rows.
        rows: of all tables together.
        seconds: time for each way.
        rounds: of the measurement.
        report: told of the progress.

    Raises UserError when the tables don't fit into the free memory.
    """
    memory = memory_with_rows(memory, rows)
    table_bytes = 4 * table_rows(memory) * memory.row_dim
    needed, free = (_DENSE_NUMBERS + _ROW_NUMBERS) * table_bytes, free_bytes(setup.device)
    if needed > free:
        raise UserError(f"two tables of {rows:,} rows take {needed / 1e9:.2g} GB, {free / 1e9:.2g} GB are free; take fewer rows")
    train, corpus = setup.train, setup.corpus
    stream = TrainBatches(corpus.train, train.seq_len, train.batch_size, seed=0)
    tokens = [torch.from_numpy(stream.batch(i)[:, :-1]).to(setup.device) for i in range(BATCHES)]  # [B, T] each
    lookup = MemoryLookup(memory, torch.from_numpy(corpus.compression.copy()), corpus.end_of_text_id).to(setup.device).train()
    grad = torch.randn(
        *tokens[0].shape, memory.reads * memory.row_dim, device=setup.device
    )  # with respect to the output of each set of tables
    cases = {
        "by row": Case(calls(by_row(lookup, tokens, grad), setup.device)),
        "dense": Case(calls(dense(lookup, tokens, grad), setup.device)),
    }
    times = interleave(cases, rounds, seconds, report, "measuring tables")
    return TableSpeed(
        rows=table_rows(memory),
        row_dim=memory.row_dim,
        table_bytes=table_bytes,
        by_row_s=Measured.of(times["by row"]),
        dense_s=Measured.of(times["dense"]),
        ratio=paired_ratio(times["dense"], times["by row"]),
    )


def _indices(lookup: MemoryLookup, tokens: Tensor) -> Tensor:
    """Tokens [B, T] -> indices int64 [sets, B, T, H]."""
    indices: Tensor = lookup.hash(lookup.compression[tokens], History())
    return indices


def _tables(lookup: MemoryLookup) -> list[EmbeddingTables]:
    return [module for module in lookup.modules() if isinstance(module, EmbeddingTables)]


def by_row(lookup: MemoryLookup, tokens: list[Tensor], grad: Tensor) -> Callable[[], None]:
    """A step of our tables with their row-wise Adam; `grad` [B, T, H r] stands for the gradient that comes from the model."""
    tables = _tables(lookup)
    for table in tables:
        nn.init.zeros_(table.weight)
    optimizer = RowOptimizer({str(i): table for i, table in enumerate(tables)}, AdamRows(_BETAS, 1e-8))
    turn = itertools.cycle(tokens)

    def step() -> None:
        out = [table(index) for table, index in zip(tables, _indices(lookup, next(turn)), strict=True)]
        torch.autograd.backward(out, [grad] * len(out))
        optimizer.step(step_scalars(optimizer.steps + 1, _RATE, _RATE, _BETAS))

    return step


def dense(lookup: MemoryLookup, tokens: list[Tensor], grad: Tensor) -> Callable[[], None]:
    """A step of one nn.Embedding per set of tables, with gradients of full size and a fused Adam over all rows."""
    tables = _tables(lookup)
    embeddings = [nn.Embedding(len(table.weight), table.weight.shape[1], device=grad.device) for table in tables]
    offsets = [table.offsets for table in tables]
    optimizer = torch.optim.Adam([e.weight for e in embeddings], lr=_RATE, betas=_BETAS, fused=True)
    turn = itertools.cycle(tokens)

    def step() -> None:
        indices = _indices(lookup, next(turn))
        out = [e(index + offset).flatten(-2) for e, index, offset in zip(embeddings, indices, offsets, strict=True)]
        torch.autograd.backward(out, [grad] * len(out))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
