"""The parts of a training step, each run on its own with the inputs of a real step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engram.benchmarks.timing import Case, calls
from engram.history import History
from engram.memory.site import MemorySite
from engram.memory.tables import EmbeddingTables
from engram.model.attention import LatentAttention, MultiHeadAttention
from engram.model.head import mean_cross_entropy
from engram.model.layers import RMSNorm, TokenEmbedding
from engram.model.moe import RoutedExperts, Router, SwiGLU, balance
from engram.model.transformer import Transformer
from engram.training.lr_schedule import rate_factor
from engram.training.optimizers.scalars import StepScalars
from engram.training.trainer import Trainer

PARTS = (
    "batch", "embedding", "hashing", "lookup", "memory fusion", "norms", "attention", "router", "experts", "shared expert",
    "dense feed-forward", "head and loss", "gradient clipping", "muon", "adamw", "row-wise adam", "balancing",
)  # fmt: skip
"""All parts, in the order of a step; a model has those that its config asks for."""

_OF_TYPE: dict[type[nn.Module], str] = {
    TokenEmbedding: "embedding",
    EmbeddingTables: "lookup",
    MemorySite: "memory fusion",
    RMSNorm: "norms",
    MultiHeadAttention: "attention",
    LatentAttention: "attention",
    Router: "router",
    RoutedExperts: "experts",
}


@dataclass
class Captured:
    """What was captured from a real step."""

    tokens: Tensor
    """Of the first pass, int64 [B, T]."""
    targets: Tensor
    inputs: dict[str, tuple[Any, ...]]
    """Arguments of every module in the first pass."""
    hidden: Tensor
    """Input of the head, [N, d]."""
    grads: dict[str, Tensor]
    """Gradient of every dense parameter, over the whole step."""
    touched: list[list[tuple[Tensor, Tensor]]]
    """Table rows that the step touched, with their gradients, by set of tables."""
    passes: float
    """Passes per step: sequences of a step over those of its first pass."""


def capture(trainer: Trainer) -> Captured:
    """Run a step up to its gradients and keep its inputs and outputs; the trainer can continue afterwards."""
    model, batch = trainer.model, _next_batch(trainer, trainer.state.step)
    passes = batch.split(trainer.at_once)
    inputs: dict[str, tuple[Any, ...]] = {}
    outputs: list[Tensor] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(module: nn.Module, given: tuple[Any, ...]) -> None:
            inputs.setdefault(name, given)

        return keep

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in model.named_modules()]

    def keep_hidden(module: nn.Module, given: tuple[Any, ...], out: Tensor | tuple[Tensor, Tensor]) -> None:
        outputs.append((out[1] if isinstance(out, tuple) else out).detach())  # the norm also gives the sum that it normalised

    handles.append(model.norm.register_forward_hook(keep_hidden))
    try:
        for part in passes:
            with trainer.autocast():
                loss = model.loss(part[:, :-1], part[:, 1:]) * (len(part) / len(batch))
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    captured = Captured(
        tokens=passes[0][:, :-1],
        targets=passes[0][:, 1:],
        inputs=inputs,
        hidden=outputs[0].flatten(0, 1),
        grads={name: p.grad for name, p in trainer.optimizers.parameters.items() if p.grad is not None},
        touched=[list(table.touched) for table in model.tables()],
        passes=len(batch) / len(passes[0]),
    )
    forget(trainer)
    for router in model.routers():
        router.load.zero_()
    return captured


def part_cases(trainer: Trainer, captured: Captured, share: float) -> dict[str, Case]:
    """A case for each part of the step, all layers together. Times are per call; see `calls_per_step`."""
    device = trainer.device

    def model_part(function: Callable[[], object]) -> Case:
        return Case(calls(function, device, before=lambda: forget(trainer)), share)

    def optimizer_part(function: Callable[[], object]) -> Case:
        return Case(calls(function, device, before=lambda: _put_back(trainer, captured)), share)

    cases = {name: model_part(_together(run)) for name, run in _module_runs(trainer, captured).items()}
    step = iter(range(trainer.state.step, trainer.train.steps))
    cases["batch"] = model_part(lambda: _next_batch(trainer, next(step)))
    cases["head and loss"] = model_part(_head(trainer, captured))
    if trainer.model.lookup is not None:
        cases["hashing"] = model_part(_hashing(trainer.model, captured))
    optimizers, scalars = trainer.optimizers, trainer.optimizers.prepare(rate_factor(trainer.train, trainer.state.step))
    with_grad = [*optimizers.parameters.values(), *(leaf for rows in captured.touched for _, leaf in rows)]
    cases["gradient clipping"] = optimizer_part(lambda: nn.utils.clip_grad_norm_(with_grad, trainer.train.grad_clip))
    cases["adamw"] = optimizer_part(lambda: optimizers.step_adamw(scalars))
    if optimizers.muon is not None:
        muon = optimizers.muon
        cases["muon"] = optimizer_part(lambda: muon.step(scalars.dense_rate))
    if captured.touched:
        cases["row-wise adam"] = optimizer_part(_rows(trainer, captured, scalars))
    if "router" in cases:
        routers = list(trainer.model.routers())
        cases["balancing"] = model_part(lambda: balance(routers))
    return {name: cases[name] for name in PARTS if name in cases}


PER_STEP = frozenset({"batch", "gradient clipping", "muon", "adamw", "row-wise adam", "balancing"})
"""Parts that run once per step; the others run once per pass."""


def calls_per_step(name: str, captured: Captured) -> float:
    """How often a part runs in a step."""
    return 1.0 if name in PER_STEP else captured.passes


def _next_batch(trainer: Trainer, step: int) -> Tensor:
    return torch.from_numpy(trainer.batches.batch(step)).to(trainer.device, non_blocking=True)


def forget(trainer: Trainer) -> None:
    """Drop gradients and touched rows, as at the beginning of a step."""
    for parameter in trainer.optimizers.parameters.values():
        parameter.grad = None
    for table in trainer.model.tables():
        table.clear()


def _put_back(trainer: Trainer, captured: Captured) -> None:
    """Restore gradients and touched rows as they were before the optimisers' step."""
    forget(trainer)
    for name, grad in captured.grads.items():
        trainer.optimizers.parameters[name].grad = grad
    for table, rows in zip(trainer.model.tables(), captured.touched, strict=True):
        table.touched.extend(rows)


def _together(runs: Iterable[Callable[[], None]]) -> Callable[[], None]:
    runs = list(runs)

    def run() -> None:
        for one in runs:
            one()

    return run


def _part_of(name: str, module: nn.Module) -> str | None:
    if isinstance(module, SwiGLU):
        return "shared expert" if name.endswith(".shared") else "dense feed-forward"
    return _OF_TYPE.get(type(module))


def _module_runs(trainer: Trainer, captured: Captured) -> dict[str, list[Callable[[], None]]]:
    """Forward and backward of every module that is a part, by part, except those inside another part (a norm in latent attention)."""
    found: dict[str, list[Callable[[], None]]] = {}
    outer: list[str] = []
    for name, module in trainer.model.named_modules():
        part = _part_of(name, module)
        if part is not None and name in captured.inputs and not any(name.startswith(f"{other}.") for other in outer):
            outer.append(name)
            found.setdefault(part, []).append(_forward_and_backward(trainer, module, captured.inputs[name]))
    return found


def _forward_and_backward(trainer: Trainer, module: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], None]:
    """Runs the module on copies of its inputs, and its backward pass from fixed gradients of its outputs."""
    given = [value.detach().clone().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value for value in inputs]
    leaves = [value for value in given if isinstance(value, Tensor) and value.requires_grad]
    parameters = list(module.parameters())
    tables = [one for one in module.modules() if isinstance(one, EmbeddingTables)]

    def forward() -> list[Tensor]:
        with trainer.autocast():
            out = module(*given)
        outputs = out if isinstance(out, list | tuple) else [out]
        own = [value for value in outputs if not any(value is one for one in given)]
        return [value for value in own if isinstance(value, Tensor) and value.requires_grad]

    grads = [torch.randn_like(value) for value in forward()]

    def run() -> None:
        torch.autograd.backward(forward(), grads)
        for value in (*leaves, *parameters):
            value.grad = None
        for table in tables:
            table.clear()

    for table in tables:
        table.clear()
    return run


def _head(trainer: Trainer, captured: Captured) -> Callable[[], None]:
    model, targets = trainer.model, captured.targets.flatten()
    hidden = captured.hidden.clone().requires_grad_()

    def run() -> None:
        with trainer.autocast():
            loss = mean_cross_entropy(hidden, model.head_weight, targets)
        loss.backward()
        hidden.grad = model.head_weight.grad = None

    return run


def _hashing(model: Transformer, captured: Captured) -> Callable[[], None]:
    lookup = model.lookup
    assert lookup is not None

    def run() -> None:
        lookup.indices(captured.tokens, History())

    return run


def _rows(trainer: Trainer, captured: Captured, scalars: StepScalars) -> Callable[[], None]:
    """Steps of the row-wise optimiser, which forgets the rows it has updated, so each step gets them anew."""
    optimizer, tables = trainer.optimizers.rows, list(trainer.model.tables())

    def run() -> None:
        for table, rows in zip(tables, captured.touched, strict=True):
            table.touched[:] = rows
        optimizer.step(scalars)

    return run
