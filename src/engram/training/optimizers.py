"""AdamW for dense weights, row-wise Adam for memory tables."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from engram.config import TrainConfig
from engram.memory.tables import EmbeddingTables
from engram.model import Transformer


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
            m = first[rows].lerp_(grad, 1 - beta1)
            v = second[rows].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            first.index_copy_(0, rows, m)
            second.index_copy_(0, rows, v)
            update = m.div_(correction1) / v.div_(correction2).sqrt_().add_(self.eps)
            table.weight.index_copy_(0, rows, table.weight[rows].sub_(update, alpha=learning_rate))


def _gather(touched: list[tuple[Tensor, Tensor]]) -> tuple[Tensor | None, Tensor | None]:
    """Distinct rows and summed gradients of all passes: int64 [U], [U, r]."""
    parts = [(rows, leaf.grad) for rows, leaf in touched if leaf.grad is not None]
    if not parts:
        return None, None
    if len(parts) == 1:
        return parts[0]
    rows, inverse = torch.unique(torch.cat([rows for rows, _ in parts]), return_inverse=True)
    grads = torch.cat([grad for _, grad in parts if grad is not None])
    return rows, grads.new_zeros(len(rows), grads.shape[1]).index_add_(0, inverse, grads)


class Optimizers:
    """All optimisers of a model behind one `step`, with the gradient clipped over all of them."""

    def __init__(self, model: Transformer, train: TrainConfig) -> None:
        self.train = train
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        decayed = [p for name, p in self.parameters.items() if _is_matrix(name, p)]
        others = [p for name, p in self.parameters.items() if not _is_matrix(name, p)]
        betas = (train.beta1, train.beta2)
        self.dense = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=train.learning_rate,
            betas=betas,
            eps=train.adam_eps,
            fused=True,
        )
        tables = {name: m for name, m in model.named_modules() if isinstance(m, EmbeddingTables)}
        self.rows = RowAdam(tables, betas, train.adam_eps)

    def step(self, factor: float) -> Tensor:
        """Clip, update with `factor` times the peak rate, drop the gradients; returns the gradient norm before clipping."""
        with_grad: Iterable[Tensor] = [*self.parameters.values(), *self.rows.leaves()]
        norm = nn.utils.clip_grad_norm_(with_grad, self.train.grad_clip)
        for group in self.dense.param_groups:
            group["lr"] = factor * self.train.learning_rate
        self.dense.step()
        self.rows.step(factor * self.train.learning_rate * self.train.table_lr_multiplier)
        self.dense.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        """All state as tensors by name, for a checkpoint."""
        state = {f"dense/{name}/{key}": value for name, p in self.parameters.items() for key, value in self.dense.state[p].items()}
        for name, (first, second) in self.rows.moments.items():
            state |= {f"rows/{name}/first": first, f"rows/{name}/second": second}
        return state | {"rows/steps": torch.tensor(self.rows.steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` returned."""
        for name, p in self.parameters.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            self.dense.state[p] = {key: state[f"dense/{name}/{key}"] for key in keys}
        for name, (first, second) in self.rows.moments.items():
            first.copy_(state[f"rows/{name}/first"])
            second.copy_(state[f"rows/{name}/second"])
        self.rows.steps = int(state["rows/steps"])


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: projections and experts, not embeddings, norms, biases and the convolution."""
    return parameter.ndim >= 2 and not name.startswith("embedding.") and "norm" not in name and not name.endswith("conv.weight")
