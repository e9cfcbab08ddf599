"""What every memory design declares: its settings, its tables, its weights, and what it adds to the model.

A design is a frozen config. Accounting counts the weights that it declares; the model builds them from the same declaration and calls
`add`. Designs import torch inside functions only, so that counting a 40 B model needs no torch.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from engram.frozen import FrozenConfig

if TYPE_CHECKING:
    from torch import Tensor

    from engram.history import History

Site = Literal["embedding", "residual", "values"]
"""Where a design adds its output: to the vocabulary embedding, to the residual stream before attention, or to attention's values."""


@dataclass(frozen=True)
class Backbone:
    """What a design may know about the surrounding model."""

    width: int
    """d."""
    n_layers: int
    branches: int
    """M."""
    values_width: int
    """Value channels of all attention heads."""
    norm_eps: float
    residual_scale: float
    """Factor on the initial standard deviation of weights whose outputs are summed in the residual stream."""


@dataclass(frozen=True)
class Weight:
    """One dense weight of a memory site."""

    shape: tuple[int, ...]
    start: float
    """Standard deviation of its initial values, which are normal around `centre`."""
    centre: float = 0.0
    matrix: bool = False
    """Whether every token is multiplied by it: then it is counted in FLOPs, decayed and updated by Muon. More than two dimensions are a
    stack of matrices."""


class Memory(FrozenConfig):
    """Hashed N-gram tables and what is done with their rows. The base class of all designs."""

    site: ClassVar[Site]

    design: str
    table_sizes: tuple[int, ...] = Field(min_length=1)
    """Requested rows of each head's table, one number per order 2..N. The actual sizes are the next unused primes."""
    n_heads: int = Field(ge=1)
    """Hash heads per order (K)."""
    memory_dim: int = Field(ge=1)
    """Length of the memory vector of a token at one site, all orders and heads together (d_mem)."""
    compression: bool = True
    """Hash canonical ids (paper, 2.2) instead of raw token ids."""
    hash_seed: int = Field(default=0, ge=0)

    # What a design has to define

    @classmethod
    @abstractmethod
    def for_shape(cls, width: int, n_layers: int) -> Self:
        """The design with settings that suit a model of that shape, and tables of placeholder length."""

    @abstractmethod
    def weights(self, model: Backbone) -> dict[str, Weight]:
        """Dense weights of one site, by name."""

    @abstractmethod
    def add(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone, past: "History") -> "Tensor":
        """What the site adds, of the shape of `stream` (site `values`: of the values of all heads, [B, T, h d_v]).

        Args:
            weights: as declared, by name.
            vectors: memory vectors [B, T, d_mem].
            stream: `embedding`: token embeddings [B, T, d]; `residual`: hidden states [B, T, M, d], or [B, T, 1, d] where
                `branchwise` is false; `values`: the normalised input of attention [B, T, d].
            model: the surrounding model.
            past: what came before, for designs that look back.
        """

    def gates(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone) -> "Tensor | None":
        """The gate of each token and branch, [B, T, M], from the inputs of `add`; None if the design has no gate."""
        return None

    # What most designs share

    @property
    def sites(self) -> tuple[int, ...]:
        """Layers with a site, counted from 0; (0,) for the embedding."""
        return (0,)

    @property
    def table_layers(self) -> tuple[int, ...]:
        """Layer numbers that seed the hashing, one per set of tables."""
        return self.sites

    @property
    def sites_of_a_row(self) -> int:
        """Number of sites that share a set of tables, each reading its own slice of a row."""
        return 1

    @property
    def branchwise(self) -> bool:
        """Whether a residual site reads and writes the M branches itself; if not, it is wrapped in a hyper-connection."""
        return True

    def check(self, model: Backbone) -> None:
        """ValueError when the design does not fit the model."""
        if max(self.sites) >= model.n_layers:
            raise ValueError(
                f"memory.layers are {list(self.sites)}; with n_layers = {model.n_layers} they go from 0 to {model.n_layers - 1}"
            )

    @property
    def max_ngram(self) -> int:
        """N, the largest order."""
        return len(self.table_sizes) + 1

    @property
    def reads(self) -> int:
        """Rows that one token reads from a set of tables: (N - 1) K."""
        return len(self.table_sizes) * self.n_heads

    @property
    def slice_dim(self) -> int:
        """Numbers of a row that one site reads."""
        return self.memory_dim // self.reads

    @property
    def row_dim(self) -> int:
        """Numbers in one table row."""
        return self.slice_dim * self.sites_of_a_row

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        if self.memory_dim % self.reads:
            raise ValueError(f"memory_dim is {self.memory_dim}; it must be a multiple of the {self.reads} heads of all orders")
        if min(self.table_sizes) < 2:
            raise ValueError(f"table_sizes are {list(self.table_sizes)}; each must be at least 2")
        if not self.sites or len(set(self.sites)) != len(self.sites) or min(self.sites) < 0:
            raise ValueError(f"layers are {list(self.sites)}; they must be distinct and not negative, and at least one")
        return self


class LayeredMemory(Memory):
    """Base class of the designs with sites in some of the layers."""

    layers: tuple[int, ...]
    """Layers with a memory, counted from 0 (the paper's layer 2 is 1 here, as in its public module)."""

    @property
    def sites(self) -> tuple[int, ...]:
        return self.layers


def nearest_multiple(value: float, unit: int) -> int:
    """The multiple of `unit` nearest to `value`, at least one unit."""
    return unit * max(1, round(value / unit))


NO_ROWS = 2
"""Smallest table, in rows; a placeholder for a length that the allocation decides."""
