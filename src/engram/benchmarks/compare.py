"""A training step of ours compared with one of transformers, and with one of a dense model of the same P_active."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from engram.benchmarks.dense_table import measure_tables
from engram.benchmarks.machine import this_machine
from engram.benchmarks.results import ComparedCase, Comparison, Measured, Ratio
from engram.benchmarks.shapes import Setup, dense_twin, steps
from engram.benchmarks.timing import Case, Report, interleave, paired_ratio, rates
from engram.benchmarks.transformers_model import deepseek_config, fastest_step, require_transformers
from engram.config.model import ModelConfig
from engram.corpus.dataset import TrainBatches
from engram.errors import UserError
from engram.memory.designs.base import Memory
from engram.scaling.accounting import count_parameters

_PROBE_SHARE = 0.1
"""Time for probing each of transformers' variants, as a share of the time for a case."""
SPARSE, SAME, DENSE, THEIRS = "sparse", "same experts, no memory", "dense", "transformers"
"""Our model at rho; our model without what transformers lacks; our dense model; the fastest variant of transformers."""


def same_experts(sparse: ModelConfig, shared_width: int) -> ModelConfig:
    """The model without its memory and with a shared expert of the size's own width, which transformers can build."""
    return sparse.model_copy(update={"memory": None, "moe": sparse.moe.model_copy(update={"shared_width": shared_width})})


def measure_comparison(setup: Setup, rho: float, table_rows: int, seconds: float, rounds: int, report: Report | None = None) -> Comparison:
    """Measure all cases, interleaved, then the two ways to keep a table.

    Args:
        setup: size, our optimiser, text, device.
        rho: of our sparse model, below 1; the other sparse models have as many routed experts.
        table_rows: rows of the tables that are compared.
        seconds: time for each case.
        rounds: of the measurement.
        report: told of the progress.

    Raises UserError when transformers is not installed, rho is 1, or the tables don't fit into memory.
    """
    version = require_transformers()
    sparse = setup.sparse(rho)
    memory: Memory | None = sparse.memory
    if memory is None:
        raise UserError(f"rho is {rho:g}; a model with a memory is compared, take one below 1")
    models = {SPARSE: sparse, SAME: same_experts(sparse, setup.size.shared_width), DENSE: dense_twin(sparse)}
    turns = {name: steps(setup.trainer(model)) for name, model in models.items()}
    if report is not None:
        report("probing transformers", 0, None)
    config = deepseek_config(models[SAME], setup.train.seq_len, setup.size.shared_experts)
    turns[THEIRS], variants = fastest_step(config, setup.train, batches(setup), setup.device, _PROBE_SHARE * seconds)
    times = interleave({name: Case(turn) for name, turn in turns.items()}, rounds, seconds, report)
    cases = []
    for name, took in times.items():
        counts = count_parameters(models[name]) if name in models else None
        cases.append(
            ComparedCase(
                name=name,
                p_total=counts.p_total if counts else None,
                p_active=counts.p_active if counts else None,
                step_s=Measured.of(took),
                tokens_per_s=rates(took, setup.tokens_per_step),
            )
        )
    pairs = ((SAME, THEIRS), (SPARSE, THEIRS), (SPARSE, DENSE))
    ratios = [Ratio(one, other, paired_ratio(times[other], times[one])) for one, other in pairs]
    turns.clear()  # the tables need their memory
    tables = measure_tables(setup, memory, table_rows, seconds, rounds, report)
    return Comparison(this_machine(setup.train, setup.device), version, variants, cases, ratios, tables)


def batches(setup: Setup) -> Iterator[Tensor]:
    """The batches of a trial without end, int64 [B, T + 1]."""
    train = setup.train
    stream = TrainBatches(setup.corpus.train, train.seq_len, train.batch_size, seed=0)
    return (torch.from_numpy(stream.batch(step)) for step in itertools.count())
