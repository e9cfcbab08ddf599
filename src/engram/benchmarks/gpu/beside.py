"""Our step beside transformers' at its fastest, and beside our own dense model of the same P_active, taking turns in one process."""

import time

from engram.benchmarks.compare import DENSE, SAME, SPARSE, THEIRS, batches, same_experts
from engram.benchmarks.gpu.environment import RHO, Environment, Tell, numbers
from engram.benchmarks.gpu.measurement import Measurement
from engram.benchmarks.results import Variant
from engram.benchmarks.shapes import dense_twin, steps
from engram.benchmarks.timing import Case, interleave, paired_ratio, rates
from engram.benchmarks.transformers_model import deepseek_config, fastest_step, require_transformers

_PROBE_S = 0.5


def measure_beside(size: str, compile_s: float) -> Measurement:
    """The measurement of one size.

    Args:
        size: of the ladder.
        compile_s: seconds for compiling variants of transformers, all together.
    """

    def measure(environment: Environment, tell: Tell) -> None:
        setup, rounds = environment.setup(size), environment.rounds
        sparse = setup.sparse(RHO)
        models = {SPARSE: sparse, SAME: same_experts(sparse, setup.size.shared_width), DENSE: dense_twin(sparse)}
        turns = {name: steps(setup.trainer(model)) for name, model in models.items()}
        times = interleave({name: Case(turn) for name, turn in turns.items()}, rounds, environment.seconds)
        tell(ours_tokens_per_s={name: numbers(rates(took, setup.tokens_per_step)) for name, took in times.items()})
        tell(over_dense=numbers(paired_ratio(times[DENSE], times[SPARSE])))
        tell(transformers=require_transformers())
        probed: list[dict[str, object]] = []

        def on_probed(variant: Variant) -> None:
            probed.append({"name": variant.name, "step_s": variant.step_s, "problem": variant.problem, "at_s": time.perf_counter() - began})
            tell(probed=probed)

        config, began = deepseek_config(models[SAME], setup.train.seq_len, setup.size.shared_experts), time.perf_counter()
        theirs, _ = fastest_step(config, setup.train, batches(setup), setup.device, _PROBE_S, on_probed, compile_s)
        cases = {SPARSE: turns[SPARSE], SAME: turns[SAME], THEIRS: theirs}
        times = interleave({name: Case(turn) for name, turn in cases.items()}, rounds, environment.seconds)
        tell(theirs_tokens_per_s=numbers(rates(times[THEIRS], setup.tokens_per_step)))
        tell(
            over_theirs=numbers(paired_ratio(times[THEIRS], times[SPARSE])),
            same_over_theirs=numbers(paired_ratio(times[THEIRS], times[SAME])),
        )

    return measure
