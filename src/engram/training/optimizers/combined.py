"""All optimisers of a model behind one step: Muon or AdamW for matrices, AdamW for the rest, a row-wise optimiser for tables."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from engram.config.training import MuonConfig, TrainConfig
from engram.memory.tables import EmbeddingTables
from engram.processes import ALONE, Processes
from engram.training.optimizers.muon import Muon, product_dtype
from engram.training.optimizers.row_optimizer import AdagradRows, AdamRows, RoundedRows, RowOptimizer, RowRule
from engram.training.optimizers.scalars import COUNT, RATE, StepScalars, step_scalars
from engram.training.replicas import clip_gradients
from engram.training.upload import Upload

HEAD = "head.weight"
"""A matrix, but its rows are classes: AdamW trains it whatever the optimiser, like the token embedding (Liu et al., 2025)."""
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
        norm = clip_gradients(self.parameters.values(), self.rows.leaves(), self.train.grad_clip, self.processes, self.rows.sums())
        self.set_rate(scalars)
        self.adamw.step()
        if self.muon:
            self.muon.step(scalars.dense_rate)
        self.rows.step(scalars)
        for parameter in self.parameters.values():
            parameter.grad = None
        return norm

    def set_rate(self, scalars: StepScalars) -> None:
        """Give AdamW the rate of a step; on a GPU it has it already, as a number that is filled anew before every step."""
        if scalars.on_device is None:
            for group in self.adamw.param_groups:
                group["lr"] = scalars.rate

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
            keys = ("step", "exp_avg", "exp_avg_sq")
            self.adamw.state[p] = {key: state[f"adamw/{name}/{key}"].to(p.device, copy=True) for key in keys}
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
