"""What memory costs: a step with it over one without, and with tables that are longer."""

from engram.benchmarks.gpu.environment import Environment, Tell, numbers
from engram.benchmarks.gpu.measurement import Measurement
from engram.benchmarks.memory import measure_memory


def measure_longer(size: str) -> Measurement:
    """The measurement of one size."""

    def measure(environment: Environment, tell: Tell) -> None:
        found = measure_memory(environment.setup(size), environment.seconds, environment.rounds)
        tell(left_out=found.left_out)
        tell(step_s={case.name: numbers(case.step_s) for case in found.cases})
        tell(ratio={case.name: numbers(case.ratio) for case in found.cases if case.ratio is not None})

    return measure
