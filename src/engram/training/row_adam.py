"""Adam for memory tables, on the rows of the batch only."""

import torch
from torch import Tensor

from engram.kernels import optimizer_ops
from engram.memory.tables import EmbeddingTables, distinct_rows, host_may_wait


class RowAdam:
    """Adam that reads and writes only the table rows of the batch (lazy Adam).

    On the rows touched a step equals dense Adam's with the same moments and step count. Rows not touched keep
    their moments undecayed and do not move; dense Adam would go on moving them. No weight decay (paper, 4.1).

    Args:
        tables: tables by name.
        betas, eps: Adam's.
    """

    def __init__(self, tables: dict[str, EmbeddingTables], betas: tuple[float, float], eps: float) -> None:
        self.tables, self.betas, self.eps = tables, betas, eps
        self.steps = 0
        self.moments = {name: (torch.zeros_like(t.weight), torch.zeros_like(t.weight)) for name, t in tables.items()}

    def leaves(self) -> list[Tensor]:
        """Copies of the rows touched since the last step, with their gradients: for the gradient norm."""
        return [leaf for table in self.tables.values() for _, leaf in table.touched]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the rows touched since the last step and forget them."""
        self.steps += 1
        beta1, beta2 = self.betas
        correction1, correction2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        for name, table in self.tables.items():
            rows, grad = _gather(table.touched)
            table.clear()
            if rows is None or grad is None:
                continue
            first, second = self.moments[name]
            if optimizer_ops.update_rows(
                table.weight, (first, second), rows, grad, self.betas, (correction1, correction2), self.eps, learning_rate
            ):
                continue
            m = first[rows].lerp_(grad, 1 - beta1)
            v = second[rows].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            first.index_copy_(0, rows, m)
            second.index_copy_(0, rows, v)
            update = m.div_(correction1) / v.div_(correction2).sqrt_().add_(self.eps)
            table.weight.index_copy_(0, rows, table.weight[rows].sub_(update, alpha=learning_rate))


def _gather(touched: list[tuple[Tensor, Tensor]]) -> tuple[Tensor | None, Tensor | None]:
    """Distinct rows and summed gradients of all passes: int64 [U], [U, r]. A row that is repeated has the same gradient each time."""
    parts = [(rows, leaf.grad) for rows, leaf in touched if leaf.grad is not None]
    if not parts:
        return None, None
    if len(parts) == 1 and host_may_wait(parts[0][0]):
        return parts[0]
    rows, inverse = distinct_rows(torch.cat([rows for rows, _ in parts]))
    grads = torch.cat([grad for _, grad in parts if grad is not None])
    grads = grads.new_zeros(len(rows), grads.shape[1]).index_add_(0, inverse, grads)
    places = torch.arange(len(rows), device=rows.device).minimum(inverse.max())  # of the largest id, where it is repeated
    return rows, grads[places]
