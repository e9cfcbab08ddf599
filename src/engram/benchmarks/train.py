"""`bench train`: whole steps, the step by part, and the step against its matrix products alone."""

from dataclasses import dataclass

from engram.accounting import model_flops_per_token
from engram.benchmarks.machine import Machine
from engram.benchmarks.parts import calls_per_step, capture, forget, part_cases
from engram.benchmarks.products import ProductTime, product_cases, product_times, step_products
from engram.benchmarks.shapes import Setup, steps
from engram.benchmarks.timing import Case, Measured, Report, interleave, rates
from engram.config import ModelConfig
from engram.training.validation import sequences_at_once

_PART_SHARE = 0.1
"""Time of a part or a product as a share of that of whole steps."""
_WHOLE = "whole step"


@dataclass(frozen=True)
class PartTime:
    """A part of the step, all layers together."""

    name: str
    seconds: Measured
    """Of a step"""
    share: float
    """Of the whole step"""


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
    """The whole step less the parts' medians: additions to the residual stream, autograd, waiting for memory, and the error of taking
    parts alone, so that it may be negative"""
    products: list[ProductTime]
    flops_per_token: int
    """Of the products, forward and backward"""

    @property
    def flops_per_s(self) -> float:
        """What training reaches."""
        return self.flops_per_token * self.tokens_per_step / self.step_s.median

    @property
    def products_s(self) -> float:
        """What the products of a step take alone."""
        return sum(product.seconds.median for product in self.products)

    @property
    def products_share(self) -> float:
        """Share of the step that its products would take alone: training at 1 would be nothing but them, at their own speed."""
        return self.products_s / self.step_s.median

    @property
    def products_flops_per_s(self) -> float:
        """The peak of these shapes."""
        return sum(product.flops for product in self.products) / self.products_s


def measure_training(setup: Setup, rho: float, seconds: float, rounds: int, report: Report | None = None) -> TrainSpeed:
    """Measure the training of the model of `rho` in this process.

    Args:
        setup: size, optimiser, text, device.
        rho: share of the inactive parameters that goes to experts.
        seconds: time for whole steps; all parts and products together take a few times that.
        rounds: rounds of the measurement.
        report: told of the progress.
    """
    model, train = setup.sparse(rho), setup.train
    trainer = setup.trainer(model, rho)
    machine = Machine.of(train, setup.device)
    whole = steps(trainer)
    whole(seconds / rounds)
    captured = capture(trainer)
    sequences = sequences_at_once(train)
    products = step_products(model, sequences, train.seq_len, round(train.batch_size / sequences))
    parts = part_cases(trainer, captured, _PART_SHARE)

    def whole_alone(turn_s: float) -> float:
        forget(trainer)  # what parts left behind
        return whole(turn_s)

    cases = {
        _WHOLE: Case(whole_alone),
        **parts,
        **product_cases(products, machine.precision, setup.device, _PART_SHARE),
    }
    times = interleave(cases, rounds, seconds, report)
    step_s = Measured.of(times[_WHOLE])
    found = []
    for name in parts:
        of_step = Measured.of([one * calls_per_step(name, captured) for one in times[name]])
        found.append(PartTime(name, of_step, of_step.median / step_s.median))
    return TrainSpeed(
        machine=machine,
        model=model,
        tokens_per_step=train.tokens_per_step,
        tokens_per_s=rates(times[_WHOLE], train.tokens_per_step),
        step_s=step_s,
        parts=found,
        other_s=step_s.median - sum(part.seconds.median for part in found),
        products=product_times(products, machine.precision, times),
        flops_per_token=model_flops_per_token(model, train.seq_len),
    )
