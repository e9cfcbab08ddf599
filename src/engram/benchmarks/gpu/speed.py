"""Whole steps: tokens per second, what they must at least move and multiply, and for how much of the time the GPU works."""

import time

import torch

from engram.benchmarks.gpu.busy import busy_share
from engram.benchmarks.gpu.environment import RHO, STEP_TOKENS, Environment, Tell, numbers
from engram.benchmarks.gpu.measurement import Measurement
from engram.benchmarks.shapes import steps
from engram.benchmarks.timing import rates
from engram.config.model import ModelConfig
from engram.scaling.accounting import count_parameters, model_flops_per_token, training_memory_bytes

_WARM_UP_S = 1.0
_WATCHED_S = 0.3
_UPDATED_BYTES = 24
"""A weight, its gradient and a moment are each read and written once in a step, in fp32."""


def measure_speed_of(size: str, step_tokens: int | None = STEP_TOKENS) -> Measurement:
    """The measurement of one size."""

    def measure(environment: Environment, tell: Tell) -> None:
        began = time.perf_counter()
        setup = environment.setup(size, step_tokens)
        model, device = setup.sparse(RHO), environment.device
        trainer = setup.trainer(model, RHO)
        turn = steps(trainer)
        first_s = turn(0.0)
        tell(tokens_per_step=setup.tokens_per_step, first_step_s=first_s, ready_s=time.perf_counter() - began)
        turn(_WARM_UP_S)
        times = [turn(environment.seconds / environment.rounds) for _ in range(environment.rounds)]
        flops = model_flops_per_token(model, setup.train.seq_len)
        speed = rates(times, setup.tokens_per_step)
        tell(tokens_per_s=numbers(speed), flops_per_s=flops * speed.median, p_active=count_parameters(model).p_active)
        tell(flops_per_step=flops * setup.tokens_per_step, bytes_per_step=bytes_of_a_step(model, setup.tokens_per_step))
        if device.type == "cuda":
            tell(memory_bytes=torch.cuda.max_memory_reserved(device))
        tell(busy_share=busy_share(lambda: turn(_WATCHED_S), device))

    return measure


def bytes_of_a_step(model: ModelConfig, tokens: int) -> int:
    """Bytes that a step moves at least, roughly: dense weights with their state, and activations written once and read once."""
    counts = count_parameters(model)
    dense = counts.p_total + counts.p_embedding - counts.memory_tables
    activations = training_memory_bytes(model, tokens) - training_memory_bytes(model, 0)
    return _UPDATED_BYTES * dense + 2 * activations
