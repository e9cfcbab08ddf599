"""Whole training steps, the step by part, and the step compared with its matrix products alone."""

from engram.benchmarks.machine import this_machine
from engram.benchmarks.parts import calls_per_step, capture, forget, part_cases
from engram.benchmarks.products import product_cases, product_times, step_products
from engram.benchmarks.results import Measured, PartTime, TrainSpeed
from engram.benchmarks.shapes import Setup, steps
from engram.benchmarks.timing import Case, Report, interleave, rates
from engram.scaling.accounting import model_flops_per_token

_PART_SHARE = 0.1
"""Time for measuring a part or a product, as a share of that for whole steps."""
_WHOLE = "whole step"


def measure_training(setup: Setup, rho: float, seconds: float, rounds: int, report: Report | None = None) -> TrainSpeed:
    """Measure the training of the model of `rho` in this process.

    Args:
        setup: size, optimiser, text, device.
        rho: share of the inactive parameters that goes to experts.
        seconds: time for whole steps; all parts and products together take a few times as long.
        rounds: of the measurement.
        report: told of the progress.
    """
    model, train = setup.sparse(rho), setup.train
    trainer = setup.trainer(model, rho)
    machine = this_machine(train, setup.device)
    whole = steps(trainer)
    whole(seconds / rounds)
    captured = capture(trainer)
    sequences = trainer.at_once
    products = step_products(model, sequences, train.seq_len, round(train.batch_size / sequences))
    parts = part_cases(trainer, captured, _PART_SHARE)

    def whole_alone(turn_s: float) -> float:
        forget(trainer)  # drop what parts left behind
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
