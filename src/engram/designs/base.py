"""What every memory design says of itself: its settings, its tables, its weights, and what it adds to the model.

A design is a frozen config; accounting counts the weights that it declares, the model builds them from the same
declaration and calls `add`. Design files import torch inside functions only, so that a 40 B model is counted at once.
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
"""Where a design adds: to the vocabulary embedding, to the residual stream before attention, to the values of attention."""


@dataclass(frozen=True)
class Backbone:
    """What a design may know of the model around it."""

    width: int
    """d"""
    n_layers: int
    branches: int
    """M"""
    values_width: int
    """Value channels of all attention heads."""
    norm_eps: float
    residual_scale: float
    """Factor on the start of weights whose outputs are summed in the residual stream."""


@dataclass(frozen=True)
class Weight:
    """One dense weight of a memory site."""

    shape: tuple[int, ...]
    start: float
    """Standard deviation of the normal distribution that it starts from, around `centre`."""
    centre: float = 0.0
    matrix: bool = False
    """A matrix that every token is multiplied by: counted in FLOPs, decayed, updated by Muon. More than two dimensions are a stack."""


class Memory(FrozenConfig):
    """Hashed N-gram tables and what is done with their rows. Base of all designs."""

    site: ClassVar[Site]

    design: str
    table_sizes: tuple[int, ...] = Field(min_length=1)
    """Requested rows of each head's table, one number for each order 2..N. The real sizes are the next unused primes."""
    n_heads: int = Field(ge=1)
    """Hash heads for each order (K)."""
    memory_dim: int = Field(ge=1)
    """Length of the memory vector of a token at one site, all orders and heads together (d_mem)."""
    compression: bool = True
    """Hash canonical ids (paper, 2.2) instead of raw token ids."""
    hash_seed: int = Field(default=0, ge=0)

    # What a design has to say

    @classmethod
    @abstractmethod
    def for_shape(cls, width: int, n_layers: int) -> Self:
        """The design as it suits a model of that shape, with tables of no particular length."""

    @abstractmethod
    def weights(self, model: Backbone) -> dict[str, Weight]:
        """Dense weights of one site."""

    @abstractmethod
    def add(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone, past: "History") -> "Tensor":
        """What the site adds, of the shape of `stream` (site `values`: of the values of all heads, [B, T, h d_v]).

        Args:
            weights: as declared, by name.
            vectors: memory vectors [B, T, d_mem].
            stream: `embedding`: token embeddings [B, T, d]; `residual`: hidden states [B, T, M, d], or [B, T, 1, d] where
                `branchwise` is false; `values`: the normalised input of attention [B, T, d].
            model: the model around it.
            past: what came before, for designs that look back.
        """

    def gates(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone) -> "Tensor | None":
        """The gate of each token and branch, [B, T, M], from what `add` is given; None: the design lets everything in."""
        return None

    # What most designs share

    @property
    def sites(self) -> tuple[int, ...]:
        """Layers that have a site, counted from 0; (0,) stands for the embedding."""
        return (0,)

    @property
    def table_layers(self) -> tuple[int, ...]:
        """Layer numbers that seed the hashing, one for each set of tables."""
        return self.sites

    @property
    def sites_of_a_row(self) -> int:
        """Sites that share a set of tables, each with a slice of the row of its own."""
        return 1

    @property
    def branchwise(self) -> bool:
        """Whether a residual site reads and writes the M branches itself; if not, a hyper-connection stands around it."""
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
        """Numbers of a row that one site takes."""
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
    """Base of the designs that have a site in some layers."""

    layers: tuple[int, ...]
    """Layers that have a memory, counted from 0 (the paper's layer 2 is 1 here, as in its public module)."""

    @property
    def sites(self) -> tuple[int, ...]:
        return self.layers


def nearest_multiple(value: float, unit: int) -> int:
    """The multiple of `unit` nearest to `value`, at least one unit."""
    return unit * max(1, round(value / unit))


NO_ROWS = 2
"""Smallest table: stands for a length that the allocation decides."""
