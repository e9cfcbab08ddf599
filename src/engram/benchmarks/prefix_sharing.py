"""How much is saved by computing common beginnings once, on a task's own requests and this machine."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm_eval.api.model import LM

from engram.benchmarks.results import Measured, PrefixSharing
from engram.errors import UserError
from engram.evaluation.passes import score

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from engram.evaluation.adapter import EngramLM


class Asked(LM):
    """A model that records what it is asked and gives meaningless answers."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []

    def loglikelihood(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self.requests += [request.args[:2] for request in requests]
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[float]:
        return [0.0] * len(requests)

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
        return [""] * len(requests)


def measure_prefix_sharing(model: "EngramLM", requests: Sequence[tuple[str, str]], rounds: int = 1) -> PrefixSharing:
    """Score (context, continuation) pairs in both ways, in turns, `rounds` times; tokenising is not timed.

    Raises UserError when there are no pairs, as for a task with free answers.
    """
    if not requests:
        raise UserError("there is nothing to measure: the task has no choices to score")
    sequences = [model.scored(before, after) for before, after in model.encode_pairs(requests)]
    values: dict[bool, list[float]] = {}
    tokens: dict[bool, int] = {}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for share in (False, True):
            tokens_before, started = model.passes.tokens_run, time.perf_counter()
            values[share] = [value for value, _ in score(model.passes, sequences, share)]
            seconds[share].append(time.perf_counter() - started)
            tokens[share] = model.passes.tokens_run - tokens_before
    difference = max(abs(a - b) for a, b in zip(values[False], values[True], strict=True))
    speedups = [alone / shared for alone, shared in zip(seconds[False], seconds[True], strict=True)]
    return PrefixSharing(
        n_requests=len(requests),
        tokens_alone=tokens[False],
        tokens_shared=tokens[True],
        seconds_alone=Measured.of(seconds[False]),
        seconds_shared=Measured.of(seconds[True]),
        speedup=Measured.of(speedups),
        largest_difference=difference,
    )
