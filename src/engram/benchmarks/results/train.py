"""Training speed and where the time of a step goes: the findings of `benchmarks.train` and `benchmarks.workers`."""

from dataclasses import dataclass

from engram.benchmarks.results.machine import Machine
from engram.benchmarks.results.measured import Measured
from engram.config.model import ModelConfig

COUNTED = (
    "projections and scores of attention (causal: half of T x T), router, shared and routed experts, the memory's projections and the"
    " head, forward and both products backward; not norms, convolution, table rows and the optimiser"
)
"""What goes into `flops_per_token` and into the FLOPs of products (`engram.scaling.accounting.model_flops_per_token`)."""


@dataclass(frozen=True)
class PartTime:
    """A part of the step, all layers together."""

    name: str
    seconds: Measured
    """Per step."""
    share: float
    """Of the whole step."""


@dataclass(frozen=True)
class ProductTime:
    """A matrix product in the faster of the dtypes that training may use."""

    name: str
    shape: tuple[int, int, int, int]
    """batch, n, k, m: `batch` products [n, k] x [k, m]."""
    count: int
    """Times in a step."""
    dtype: str
    seconds: Measured
    """Per step, both backward products included."""
    flops: int
    """Per step."""


@dataclass(frozen=True)
class TrainSpeed:
    """What `measure_training` found."""

    machine: Machine
    model: ModelConfig
    tokens_per_step: int
    tokens_per_s: Measured
    step_s: Measured
    parts: list[PartTime]
    other_s: float
    """The whole step less the parts' medians: additions to the residual stream, autograd, allocation, and the error of timing parts
    alone, so it may be negative."""
    products: list[ProductTime]
    flops_per_token: int
    """Of the matrix products, forward and backward."""

    @property
    def flops_per_s(self) -> float:
        """FLOPs per second that training reaches."""
        return self.flops_per_token * self.tokens_per_step / self.step_s.median

    @property
    def products_s(self) -> float:
        """Seconds that the products of a step take alone."""
        return sum(product.seconds.median for product in self.products)

    @property
    def products_share(self) -> float:
        """Share of the step that its products would take alone; at 1, training would do nothing else, at their own speed."""
        return self.products_s / self.step_s.median

    @property
    def products_flops_per_s(self) -> float:
        """FLOPs per second of the products alone: the peak for these shapes."""
        return sum(product.flops for product in self.products) / self.products_s


@dataclass(frozen=True)
class SideBySide:
    """Training speed of copies that ran at the same time."""

    tokens_per_s: list[Measured]
    """Of each copy, over the rounds."""

    @property
    def total_tokens_per_s(self) -> float:
        return sum(copy.median for copy in self.tokens_per_s)
