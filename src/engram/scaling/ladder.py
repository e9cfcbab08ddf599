"""Named model sizes: one family of shapes from a few seconds on a laptop core to a GPU's worth.

All sizes share the proportions that set sparsity: at rho = 1, 100 routed experts of width about d/3, of which each token visits 4, and
a shared expert of twice that width. That gives P_total / P_active near 10 at every size, as in the paper (3.1). The paper's own shape
(top-6, width 0.6 d) reaches this ratio only where attention is small compared with the experts; at d = 96 it would leave two layers.
"""

from dataclasses import dataclass

from engram.errors import UserError


@dataclass(frozen=True)
class Size:
    """A point of the ladder at rho = 1."""

    name: str
    n_layers: int
    width: int
    n_heads: int
    expert_width: int
    n_routed_experts: int = 100
    top_k: int = 4
    shared_experts: int = 2
    """Width of the shared expert at rho = 1, in widths of a routed expert."""

    @property
    def shared_width(self) -> int:
        return self.shared_experts * self.expert_width


# name, layers, d, heads, expert width
LADDER: dict[str, Size] = {
    size.name: size
    for size in (
        Size("1m", 2, 64, 2, 24),
        Size("3m", 3, 96, 3, 32),
        Size("10m", 5, 144, 3, 48),
        Size("30m", 6, 224, 7, 80),
        Size("100m", 8, 352, 11, 120),
        Size("300m", 10, 544, 17, 184),
        Size("1b", 16, 768, 12, 256),
        Size("3b", 20, 1152, 18, 384),
        Size("6b", 24, 1536, 24, 512),
    )
}


def size(name: str) -> Size:
    """The size of that name; an unknown one is a UserError that lists the names."""
    try:
        return LADDER[name]
    except KeyError:
        raise UserError(f"size '{name}' is unknown; the ladder has {', '.join(LADDER)}") from None
