"""Several trials of a small size side by side."""

from engram.benchmarks.gpu.environment import RHO, Environment, Tell, numbers
from engram.benchmarks.gpu.measurement import Measurement
from engram.benchmarks.pack import measure_pack

COUNTS = (1, 2, 4, 8)


def measure_packed(size: str, step_tokens: int | None) -> Measurement:
    """The measurement of one size."""

    def measure(environment: Environment, tell: Tell) -> None:
        setup = environment.setup(size, step_tokens)
        trial, counts = setup.trial(setup.sparse(RHO), RHO), COUNTS[:2] if environment.rehearsal else COUNTS
        pack = measure_pack(trial, environment.corpus_folder, environment.device_name, counts, environment.seconds, environment.rounds)
        tell(tokens_per_step=pack.tokens_per_step, mps=pack.mps, problem=pack.problem, best=pack.best)
        tell(together={str(packed.workers): numbers(packed.together) for packed in pack.counts})

    return measure
