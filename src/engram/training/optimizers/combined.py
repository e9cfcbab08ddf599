"""All optimisers of a model behind one step: Muon or AdamW for matrices, AdamW for the rest, a row-wise optimiser for tables."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engram.config.training import MuonConfig, TrainConfig
from engram.kernels import gpu
from engram.kernels.gpu.step_numbers import COUNT, RATE
from engram.memory.tables import EmbeddingTables
from engram.processes import ALONE, Processes
from engram.training.optimizers.muon import Muon, product_dtype
from engram.training.optimizers.row_optimizer import AdagradRows, AdamRows, RoundedRows, RowOptimizer, RowRule
from engram.training.optimizers.scalars import StepScalars, step_scalars
from engram.training.replicas import clip_gradients
from engram.training.upload import Upload

if TYPE_CHECKING:
    from engram.kernels.gpu.adamw import AdamW
    from engram.kernels.gpu.clipping import GradientNorm

HEAD = "head.weight"
"""A matrix, but its rows are classes: AdamW trains it whatever the optimiser, like the token embedding (Liu et al., 2025)."""
ADAMW_PARTS = "step", "exp_avg", "exp_avg_sq"
"""The state of a weight in `torch.optim.AdamW`."""
_NOT_MATRICES = {"conv", "bias", "gate"}


class Optimizers:
    """The optimisers of `model` that `train` asks for; the gradient is clipped over all of them together."""

    def __init__(self, model: nn.Module, train: TrainConfig, processes: Processes = ALONE) -> None:
        self.train, self.processes = train, processes
        config = train.optimizer
        self.betas = (config.beta1, config.beta2)
        device = next(model.parameters()).device
        self._upload = Upload((COUNT,), torch.float32, device) if device.type == "cuda" else None
        on_device = self._upload.on_device if self._upload is not None else None
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        matrices = matrix_names(model)
        self.muon: Muon | None = None
        on_muon: set[str] = set()
        if isinstance(config, MuonConfig):
            on_muon = matrices - {HEAD}
            weights = {name: p for name, p in self.parameters.items() if name in on_muon}
            self.muon = Muon(weights, config.momentum, config.iterations, train.weight_decay, product_dtype(device))
        self.on_adamw = {name: p for name, p in self.parameters.items() if name not in on_muon}
        decayed = [p for name, p in self.on_adamw.items() if name in matrices]
        others = [p for name, p in self.on_adamw.items() if name not in matrices]
        self.adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=train.learning_rate if on_device is None else on_device[RATE],
            betas=self.betas,
            eps=config.eps,
            fused=True,
            capturable=on_device is not None,
        )
        tables = {
            name: m for name, m in model.named_modules() if isinstance(m, EmbeddingTables)
        }  # by module, so that part of a model works too
        self.rows = RowOptimizer(tables, row_rule(train))
        self._norms: dict[tuple[int, ...], GradientNorm] = {}
        """Of a GPU's kernels, by the sizes of the gradients."""
        self._adamw_kernels: dict[tuple[int, ...], AdamW] = {}
        """By group and weights that have a gradient."""

    def step(self, factor: float) -> Tensor:
        """Clip, update at `factor` times the peak rate, and drop the gradients; returns the gradient norm before clipping, fp32 []."""
        return self.apply(self.prepare(factor))

    def prepare(self, factor: float) -> StepScalars:
        """Count the step, and bring its numbers to the device: what the host has to do for a step at `factor` times the peak rate."""
        self.rows.steps += 1
        rate = factor * self.train.learning_rate
        scalars = step_scalars(self.rows.steps, rate, rate * self.train.table_lr_multiplier, self.betas)
        return scalars if self._upload is None else replace(scalars, on_device=self._upload.put(scalars.packed()))

    def apply(self, scalars: StepScalars) -> Tensor:
        """What the device has to do for a step; returns the gradient norm before clipping, fp32 []."""
        norm, factor = self._clip()
        self.step_adamw(scalars, factor)
        if self.muon:
            self.muon.step(scalars.dense_rate, factor)
        self.rows.step(scalars)
        for parameter in self.parameters.values():
            parameter.grad = None
        return norm

    def _clip(self) -> tuple[Tensor, Tensor | None]:
        """The gradient norm fp32 [], and what a GPU's kernels have to multiply the dense gradients with if they aren't clipped in place."""
        leaves, sums = self.rows.leaves(), self.rows.sums()
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        if leaves or self.processes.count > 1 or not grads or not self._in_kernels():
            return clip_gradients(self.parameters.values(), leaves, self.train.grad_clip, self.processes, sums), None
        from engram.kernels.gpu.clipping import GradientNorm

        tensors = [*grads, *(one.norms for one in sums)]
        sizes = tuple(x.numel() for x in tensors)
        if sizes not in self._norms:
            self._norms[sizes] = GradientNorm(sizes, grads[0].device)
        norm, factor = self._norms[sizes](tensors, self.train.grad_clip)
        for one in sums:
            one.clip(norm, self.train.grad_clip)
        return norm, factor

    @torch.no_grad()
    def step_adamw(self, scalars: StepScalars, factor: Tensor | None = None) -> None:
        """Update what AdamW trains; a GPU's kernels multiply the gradients by `factor`, fp32 []."""
        if self._in_kernels():
            self._adamw_on_gpu(scalars, factor)
            return
        if scalars.on_device is None:  # on a GPU it has the rate already, as a number that is filled anew before every step
            for group in self.adamw.param_groups:
                group["lr"] = scalars.rate
        self.adamw.step()

    def _adamw_on_gpu(self, scalars: StepScalars, factor: Tensor | None) -> None:
        from engram.kernels.gpu.adamw import AdamW, Moments

        for number, group in enumerate(self.adamw.param_groups):
            trained = [p for p in group["params"] if p.grad is not None]
            if not trained:
                continue
            key = (number, *map(id, trained))
            if key not in self._adamw_kernels:
                for p in trained:
                    if not self.adamw.state[p]:
                        start = {"step": p.new_zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                        self.adamw.state[p] = start
                moments = [Moments(*(self.adamw.state[p][part] for part in ADAMW_PARTS)) for p in trained]
                weights = [p.detach() for p in trained]
                self._adamw_kernels[key] = AdamW(weights, moments, self.betas, self.train.optimizer.eps, group["weight_decay"])
            grads = [p.grad for p in trained if p.grad is not None]
            one = grads[0].new_ones(()) if factor is None else factor
            self._adamw_kernels[key].step(grads, scalars.for_kernels(one.device), one)

    def _in_kernels(self) -> bool:
        return all(gpu.usable(p) and p.dtype == torch.float32 for p in self.parameters.values())

    def state(self) -> dict[str, Tensor]:
        """All state as tensors by name, for a checkpoint. These are not copies."""
        state = {f"adamw/{name}/{key}": value for name, p in self.on_adamw.items() for key, value in self.adamw.state[p].items()}
        if self.muon:
            state |= {f"muon/{name}": buffer for name, buffer in self.muon.buffers.items()}
        state |= {f"rows/{name}/{part}": x for name, parts in self.rows.state.items() for part, x in parts.items()}
        return state | {"rows/steps": torch.tensor(self.rows.steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load a copy of what `state` returned, from whatever device it is on."""
        for name, p in self.on_adamw.items():
            self.adamw.state[p] = {key: state[f"adamw/{name}/{key}"].to(p.device, copy=True) for key in ADAMW_PARTS}
        self._adamw_kernels.clear()  # they hold the state of before
        if self.muon:
            for name, buffer in self.muon.buffers.items():
                buffer.copy_(state[f"muon/{name}"])
        for name, parts in self.rows.state.items():
            for part, x in parts.items():
                x.copy_(state[f"rows/{name}/{part}"])
        self.rows.steps = int(state["rows/steps"])


def row_rule(train: TrainConfig) -> RowRule:
    """The rule that `train` asks for to update table rows."""
    config = train.optimizer
    rule = AdagradRows(config.eps) if train.table_optimizer == "adagrad" else AdamRows((config.beta1, config.beta2), config.eps)
    return RoundedRows(rule) if train.table_format == "bf16" else rule


def matrix_names(model: nn.Module) -> set[str]:
    """Names of the dense parameters that are matrices: projections, experts, routers, head.

    Weight decay applies to these and, except for the head, so does Muon. A module with an attribute `matrices` (names of its own
    parameters) decides for itself.
    """
    names = set()
    for prefix, module in model.named_modules():
        declared = getattr(module, "matrices", None)
        for name, parameter in module.named_parameters(prefix, recurse=False):
            matrix = is_matrix(name, parameter) if declared is None else name.rpartition(".")[2] in declared
            if matrix and parameter.requires_grad:  # tables have none
                names.add(name)
    return names


def is_matrix(name: str, parameter: Tensor) -> bool:
    """The rule for modules that do not decide for themselves: no token embeddings, norms, convolutions, biases or gates."""
    parts = set(name.split("."))
    return parameter.ndim >= 2 and not name.startswith("embedding.") and "norm" not in name and not parts & _NOT_MATRICES
