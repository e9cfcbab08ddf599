"""Captures what passes through a model, with hooks on its own forward pass: states after each layer, inputs of the memory sites."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engram.errors import UserError
from engram.memory.site import MemorySite
from engram.model import Transformer
from engram.model.residual import Residual

Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""Module, its positional inputs, its output -> another output, or None to keep it."""


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Hook) -> Iterator[None]:
    """Call `hook` after each forward pass of the modules, for the length of a block."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layer_states(model: Transformer, tokens: Tensor) -> list[Tensor]:
    """States after each layer, before the final norm: int64 [B, T] -> [B, T, d] for each of the L layers.

    M branches are merged as the model merges them after its last layer (`HyperHead`), which gives what the head would read if that layer
    were the last. The last state is the one that the model's own prediction is made from.
    """
    states: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], stream: Residual) -> None:
        hidden = stream.value()
        states.append(hidden.squeeze(2) if model.merge is None else model.merge(hidden))

    with hooked(model.blocks, keep):
        model(tokens)
    return states


def memory_sites(model: Transformer, layers: Sequence[int] | None = None) -> dict[int, MemorySite]:
    """The memory sites by layer, in ascending order; a memory in the embedding counts as layer 0.

    Args:
        model: any model.
        layers: those wanted; None or empty: every layer with a memory.

    Raises UserError when the model has no memory, or none in a wanted layer.
    """
    memories = [model.embedding_memory] if model.embedding_memory is not None else [block.memory for block in model.blocks]
    sites = {layer: memory for layer, memory in enumerate(memories) if isinstance(memory, MemorySite)}
    if not sites:
        raise UserError("the model has no memory (design none, rho = 1); this takes a model with memory")
    wanted = sorted(set(layers)) if layers else sorted(sites)
    for layer in wanted:
        if layer not in sites:
            raise UserError(f"layer {layer} has no memory; the layers with memory are {', '.join(map(str, sorted(sites)))}")
    return {layer: sites[layer] for layer in wanted}


@torch.no_grad()
def site_inputs(model: Transformer, tokens: Tensor, sites: dict[int, MemorySite]) -> list[tuple[Tensor, Tensor]]:
    """The inputs of each site: int64 [B, T] -> memory vectors [B, T, d_mem] and the stream, in the order of `sites`."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        seen[module] = (inputs[0], inputs[1])

    with hooked(sites.values(), keep):
        model(tokens)
    return [seen[site] for site in sites.values()]
