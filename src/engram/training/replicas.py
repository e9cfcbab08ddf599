"""Training one model in several processes: each takes a share of every batch and holds all dense weights and a shard of the tables.

The dense weights start equal and get bitwise equal summed gradients, so they stay equal without being sent.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from torch import Tensor, nn

from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.errors import UserError
from engram.memory.lookup import MakeTables
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.settings import TablePlacement
from engram.memory.primes import head_table_sizes
from engram.memory.row_sums import RowSums
from engram.memory.sharded import ShardedTables
from engram.memory.tables import EmbeddingTables
from engram.processes import Processes


def check_processes(model: ModelConfig, train: TrainConfig, count: int) -> None:
    """UserError unless `count` processes can train this model together."""
    if train.batch_size % count:
        raise UserError(f"a batch of {train.batch_size} sequences can't be shared by {count} devices; it must be a multiple of them")
    memory = model.memory
    if memory is not None and count > 1:
        layers = head_table_sizes(memory.table_sizes, memory.n_heads, len(memory.table_layers))
        rows = min(sum(map(sum, layer)) for layer in layers)
        if rows < count:
            raise UserError(f"a memory with {rows} rows can't be spread over {count} devices; give it a row for each at least")


def tables_for(processes: Processes, placement: TablePlacement, train: TrainConfig) -> MakeTables:
    """What makes the memory tables of a trial; UserError when they would be both sharded over processes and kept outside them."""
    dtype = FORMATS[train.table_format].dtype
    if processes.count > 1:
        check_placement(processes.count, placement)
        return partial(ShardedTables, processes=processes, dtype=dtype)
    device = {"process": None, "host": "cpu", "disk": "meta"}[placement.kind]
    return partial(EmbeddingTables, device=device, dtype=dtype)


def check_placement(count: int, placement: TablePlacement) -> None:
    """UserError when several processes would keep their tables outside: each of them holds a share of the rows itself."""
    if count > 1 and placement.kind != "process":
        raise UserError(f"tables '{placement.kind}' are for trials on one device; on {count} their rows are spread over the processes")


def share_of_batch(batch: np.ndarray, processes: Processes) -> np.ndarray:
    """This process's sequences of a batch [B, ...]: [B / count, ...]."""
    each = len(batch) // processes.count
    return batch[processes.rank * each : (processes.rank + 1) * each]


def sum_step(model: nn.Module, others: Iterable[Tensor], processes: Processes) -> None:
    """Sum the dense gradients, and `others` (fp32), over the processes in place. Each process's loss is its part of the batch's mean."""
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    processes.sum([*grads, *others])


def clip_gradients(
    dense: Iterable[Tensor], rows: Iterable[Tensor], limit: float, processes: Processes, sums: Sequence[RowSums] = ()
) -> Tensor:
    """Scale all gradients down to the norm `limit` if theirs is larger; returns the norm before that.

    Args:
        dense: parameters whose gradients are the same in every process and count once.
        rows: leaves with the gradients of this process's table rows.
        limit: the largest norm allowed.
        processes: the processes of the trial.
        sums: gradients of table rows that are scaled when they are used; in a trial of one process only.
    """
    dense, rows = list(dense), list(rows)
    if sums:
        grads = [leaf.grad for leaf in [*dense, *rows] if leaf.grad is not None]
        norm = nn.utils.get_total_norm([*grads, *(one.norms for one in sums)])
        nn.utils.clip_grads_with_norm_([*dense, *rows], limit, norm)
        for one in sums:
            one.clip(norm, limit)
        return norm
    if processes.count == 1:
        return nn.utils.clip_grad_norm_([*dense, *rows], limit)
    of_dense, of_rows = _norm(dense), _norm(rows)
    if of_dense is None:
        raise ValueError("no dense weight has a gradient")
    squares = of_dense.new_zeros(()) if of_rows is None else of_rows.square()
    processes.sum([squares])
    norm = (of_dense.square() + squares).sqrt()
    nn.utils.clip_grads_with_norm_([*dense, *rows], limit, norm)
    return norm


def _norm(leaves: Sequence[Tensor]) -> Tensor | None:
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    return nn.utils.get_total_norm(grads) if grads else None


def share_of_windows(windows: np.ndarray, processes: Processes) -> np.ndarray:
    """This process's share of windows [n, T]: ceil(n / count), the last repeated where they run out, so that all make as many passes."""
    each = -(-len(windows) // processes.count)
    return windows[np.minimum(np.arange(processes.rank * each, (processes.rank + 1) * each), len(windows) - 1)]
