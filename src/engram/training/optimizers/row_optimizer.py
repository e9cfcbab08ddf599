"""The optimiser of memory tables, which touches only the rows of the batch."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from engram.kernels import optimizer_ops
from engram.memory.placement.rows import widened
from engram.memory.row_sums import RowSums, sums_by_row
from engram.memory.tables import EmbeddingTables
from engram.training.optimizers.rounding import round_at_random
from engram.training.optimizers.scalars import StepScalars


class RowRule(Protocol):
    """How a row is updated by its gradient."""

    def state_dims(self, row_dim: int) -> dict[str, int]:
        """Numbers per row in each part of the state, by name."""

    def change(self, weight: Tensor, state: list[Tensor], rows: Tensor, grad: Tensor, scalars: StepScalars) -> None:
        """Update distinct rows int64 [U] of weight [n, r] and state [n, ..] in place.

        Args:
            weight: fp32 (bf16 for `RoundedRows`).
            state: fp32, in the order of `state_dims`.
            rows: which rows.
            grad: their gradients, fp32 [U, r].
            scalars: of the step.
        """

    def change_on_gpu(self, weight: Tensor, state: list[Tensor], gradients: RowSums, scalars: StepScalars) -> None:
        """The same by a GPU's kernels, which take weights in fp32 and bf16; the latter are rounded as by `RoundedRows`."""


class AdamRows:
    """Adam that reads and writes only the rows of the batch (lazy Adam): 2 r numbers of state for a row of r.

    On the rows touched, a step equals dense Adam's with the same moments and step count. Rows not touched keep their moments undecayed and
    do not move, whereas dense Adam would go on moving them. No weight decay (paper, 4.1).
    """

    def __init__(self, betas: tuple[float, float], eps: float) -> None:
        self.betas, self.eps = betas, eps

    def state_dims(self, row_dim: int) -> dict[str, int]:
        return {"first": row_dim, "second": row_dim}

    def change(self, weight: Tensor, state: list[Tensor], rows: Tensor, grad: Tensor, scalars: StepScalars) -> None:
        beta1, beta2 = self.betas
        first, second = state
        corrections, rate = scalars.corrections, scalars.table_rate
        if optimizer_ops.update_rows(weight, (first, second), rows, grad, self.betas, corrections, self.eps, rate):
            return
        m = first[rows].lerp_(grad, 1 - beta1)
        v = second[rows].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        first.index_copy_(0, rows, m)
        second.index_copy_(0, rows, v)
        update = m.div_(corrections[0]) / v.div_(corrections[1]).sqrt_().add_(self.eps)
        weight.index_copy_(0, rows, weight[rows].sub_(update, alpha=rate))

    def change_on_gpu(self, weight: Tensor, state: list[Tensor], gradients: RowSums, scalars: StepScalars) -> None:
        from engram.kernels.gpu import row_updates

        first, second = state
        row_updates.adam(weight, (first, second), gradients, scalars.for_kernels(weight.device), self.betas, self.eps)


class AdagradRows:
    """Row-wise AdaGrad: one number of state per row, the sum of its gradients' mean squares (Duchi et al., 2011; with one number per row as
    in DLRM, Naumov et al., 2019)."""

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def state_dims(self, row_dim: int) -> dict[str, int]:
        return {"squares": 1}

    def change(self, weight: Tensor, state: list[Tensor], rows: Tensor, grad: Tensor, scalars: StepScalars) -> None:
        (squares,) = state
        total = squares[rows].add_(grad.square().mean(-1, keepdim=True))  # [U, 1]
        squares.index_copy_(0, rows, total)
        weight.index_copy_(0, rows, weight[rows].addcdiv_(grad, total.sqrt().add_(self.eps), value=-scalars.table_rate))

    def change_on_gpu(self, weight: Tensor, state: list[Tensor], gradients: RowSums, scalars: StepScalars) -> None:
        from engram.kernels.gpu import row_updates

        row_updates.adagrad(weight, state[0], gradients, scalars.for_kernels(weight.device), self.eps)


class RoundedRows:
    """A rule for rows stored in bf16: it updates fp32 copies, which are rounded stochastically. State stays fp32."""

    def __init__(self, rule: RowRule) -> None:
        self.rule = rule

    def state_dims(self, row_dim: int) -> dict[str, int]:
        return self.rule.state_dims(row_dim)

    def change(self, weight: Tensor, state: list[Tensor], rows: Tensor, grad: Tensor, scalars: StepScalars) -> None:
        copies, its_state = weight[rows].float(), [part[rows] for part in state]
        self.rule.change(copies, its_state, torch.arange(len(rows), device=rows.device), grad, scalars)
        weight.index_copy_(0, rows, round_at_random(copies, scalars.step))
        for part, changed in zip(state, its_state, strict=True):
            part.index_copy_(0, rows, changed)

    def change_on_gpu(self, weight: Tensor, state: list[Tensor], gradients: RowSums, scalars: StepScalars) -> None:
        self.rule.change_on_gpu(weight, state, gradients, scalars)


class RowOptimizer:
    """Applies a rule to all tables of a model.

    Args:
        tables: by name.
        rule: how rows are updated.
    """

    def __init__(self, tables: dict[str, EmbeddingTables], rule: RowRule) -> None:
        self.tables, self.rule = tables, rule
        self.steps = 0
        self.state = {name: self._start(table.weight) for name, table in tables.items() if not table.weight.is_meta}
        """Of tables in RAM, by table and part; rows in files have their state beside them."""

    def _start(self, weight: Tensor) -> dict[str, Tensor]:
        dims = self.rule.state_dims(weight.shape[1])
        dtype = widened(weight[:0]).dtype
        return {part: weight.new_zeros(len(weight), dim, dtype=dtype) for part, dim in dims.items()}

    def leaves(self) -> list[Tensor]:
        """Leaves with the gradients of the rows touched since the last step, summed by row: for the gradient norm.

        Those of `sums` are not among them.
        """
        for table in self.tables.values():
            table.collect()
        return [leaf for table in self.tables.values() if not table.in_kernels for _, leaf in table.touched]

    @torch.no_grad()
    def sums(self) -> list[RowSums]:
        """The gradients of the rows touched since the last step in the tables that a GPU's kernels update, summed by row."""
        tables = [table for table in self.tables.values() if table.in_kernels]
        reads = [(table, found) for table in tables if table.summed is None and (found := table.reads()) is not None]
        if reads:
            summed = sums_by_row([found for _, found in reads], [len(table.weight) for table, _ in reads])
            for (table, _), one in zip(reads, summed, strict=True):
                table.summed = one
        return [table.summed for table in tables if table.summed is not None]

    @torch.no_grad()
    def step(self, scalars: StepScalars) -> None:
        """Update the rows touched since the last step and forget them. Rows outside the model are updated in the background."""
        self.steps = scalars.step
        self.sums()
        for name, table in self.tables.items():
            state = list(self.state.get(name, {}).values())
            if table.in_kernels:
                if table.summed is not None:
                    self.rule.change_on_gpu(table.weight.detach(), state, table.summed, scalars)
                table.clear()
            else:
                table.update(partial(self.rule.change, scalars=scalars), state, scalars.step)
