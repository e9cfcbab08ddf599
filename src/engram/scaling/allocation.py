"""The sparsity allocation problem (paper, 3.1): a size and a rho determine the experts and the slots.

P_total and P_active of the size at rho = 1 are the targets for every rho. Three whole numbers are free:

- routed experts: `top_k + rho * (experts at rho = 1 - top_k)`, so that rho divides the inactive parameters;
- the shared expert's width: a memory brings projections that every token uses, and fewer experts mean a smaller router; at small
  width neither is negligible, so the shared expert makes up the difference in P_active;
- slots: whatever is left of P_total goes to the tables.
"""

from collections.abc import Callable

from engram.config.model import ATTENTIONS, ModelConfig, MoEConfig
from engram.errors import UserError
from engram.memory.designs.base import NO_ROWS, Memory
from engram.memory.designs.registry import design
from engram.scaling.accounting import count_parameters, table_rows
from engram.scaling.ladder import Size

TOLERANCE = 0.005
"""Largest relative spread of P_total and of P_active across the rhos of a sweep."""


def baseline(size: Size, vocab_size: int, attention: str = "mha") -> ModelConfig:
    """The pure MoE of rho = 1; its counts are the targets of `allocate`. UserError when there is no such attention."""
    if attention not in ATTENTIONS:
        raise UserError(f"attention kind '{attention}' is unknown; there are {', '.join(ATTENTIONS)}")
    return ModelConfig(
        vocab_size=vocab_size,
        width=size.width,
        n_layers=size.n_layers,
        attention=ATTENTIONS[attention].for_shape(size.width, size.n_heads),
        moe=MoEConfig(
            n_routed_experts=size.n_routed_experts,
            top_k=size.top_k,
            expert_width=size.expert_width,
            shared_width=size.shared_width,
        ),
    )


def memory_template(size: Size, name: str = "engram") -> Memory:
    """The memory design of that name, shaped for a size, with tables of placeholder length; UserError when there is no such design."""
    return design(name).for_shape(size.width, size.n_layers)


def allocate(base: ModelConfig, memory: Memory, rho: float) -> ModelConfig:
    """Split the inactive parameters of `base` (a pure MoE): share rho to routed experts, the rest to the tables of `memory`.

    `memory.table_sizes` is replaced; everything else in both configs is kept. Raises UserError when rho is outside [0, 1] or the size is
    too small for the memory.
    """
    if not 0 <= rho <= 1:
        raise UserError(f"rho is {rho}; it must be between 0 (all memory) and 1 (all experts)")
    if rho == 1:
        return base
    experts = base.moe.top_k + round(rho * (base.moe.n_routed_experts - base.moe.top_k))
    while experts >= base.moe.top_k:
        config = _with_memory(base, memory, experts)
        if config is not None:
            return config
        experts -= 1  # rho is so close to 1 that rounding the experts up left no room for a table
    total = count_parameters(base).p_total
    raise UserError(f"rho is {rho}: a model of {total:,} parameters has no room for this memory; take a larger size")


def with_slots(base: ModelConfig, memory: Memory, slots: int) -> ModelConfig:
    """Add tables of about `slots` rows in all to a fixed backbone (paper, 3.2): P_total grows, experts and P_active stay.

    `memory.table_sizes` is replaced; the tables of all heads are about equally long. With 0 slots the result is `base`. Raises UserError
    when the size is too small for the memory's projections.
    """
    if not slots:
        return base
    experts = base.moe.n_routed_experts
    shared_width = _shared_width(base, memory, experts)

    def excess(rows_per_head: int) -> int:
        return table_rows(memory.model_copy(update={"table_sizes": (rows_per_head,) * len(memory.table_sizes)})) - slots

    return ModelConfig.model_validate(_build(base, memory, experts, shared_width, _nearest_to_zero(excess)).model_dump())


def _nearest_to_zero(excess: Callable[[int], int]) -> int:
    """Rows per head, at least `NO_ROWS`, at which `excess`, a rising function of them, is nearest to zero."""
    low, high = NO_ROWS, 2 * NO_ROWS
    while excess(high) <= 0:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if excess(middle) <= 0 else (low, middle)
    return low if -excess(low) <= excess(high) else high


def _build(base: ModelConfig, memory: Memory, experts: int, shared_width: int, rows_per_head: int) -> ModelConfig:
    return base.model_copy(
        update={
            "moe": base.moe.model_copy(update={"n_routed_experts": experts, "shared_width": shared_width}),
            "memory": memory.model_copy(update={"table_sizes": (rows_per_head,) * len(memory.table_sizes)}),
        }
    )


def _shared_width(base: ModelConfig, memory: Memory, experts: int) -> int:
    """Width of the shared expert that keeps P_active as it is in `base`; UserError when the expert would have to be narrower than 0."""
    # What the memory's projections add for every token, less the router columns of experts that are gone.
    with_memory = count_parameters(_build(base, memory, experts, base.moe.shared_width, NO_ROWS))
    added = with_memory.p_active - count_parameters(base).p_active
    shared_width = base.moe.shared_width - round(added / (3 * base.width * base.n_moe_layers))
    if shared_width < 0:
        raise UserError(
            f"the memory's projections use {added:,} parameters a token, more than the shared expert can give up"
            f" (width {base.moe.shared_width}); take a smaller memory_dim, fewer memory layers or a larger size"
        )
    return shared_width


def _with_memory(base: ModelConfig, memory: Memory, experts: int) -> ModelConfig | None:
    target, shared_width = count_parameters(base), _shared_width(base, memory, experts)

    def build(rows_per_head: int) -> ModelConfig:
        return _build(base, memory, experts, shared_width, rows_per_head)

    def excess(rows_per_head: int) -> int:
        return count_parameters(build(rows_per_head)).p_total - target.p_total

    if excess(NO_ROWS) > 0:
        return None
    return ModelConfig.model_validate(build(_nearest_to_zero(excess)).model_dump())


def spread(values: list[int]) -> float:
    """(largest - smallest) / smallest."""
    return (max(values) - min(values)) / min(values)


def check_spread(configs: dict[str, ModelConfig], names: tuple[str, ...] = ("p_total", "p_active")) -> None:
    """UserError unless the counts `names` of all configs, which are keyed by label, agree within `TOLERANCE`."""
    counts = {label: count_parameters(config) for label, config in configs.items()}
    for name in names:
        values = {label: getattr(count, name) for label, count in counts.items()}
        if values and spread(list(values.values())) > TOLERANCE:
            low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
            raise UserError(
                f"{name} differs by {100 * spread(list(values.values())):.2f} % between {low} ({values[low]:,}) and"
                f" {high} ({values[high]:,}); trials that are compared may differ by {100 * TOLERANCE} % at most"
            )
