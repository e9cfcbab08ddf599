"""How much computing common beginnings once saves, on given requests and this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engram.evaluation.passes import score

if TYPE_CHECKING:
    from engram.evaluation.adapter import EngramLM


@dataclass(frozen=True)
class PrefixSharing:
    """The same requests, each by itself (in batches) and with common beginnings computed once."""

    n_requests: int
    tokens_alone: int
    """That went through the model."""
    tokens_shared: int
    seconds_alone: float
    seconds_shared: float
    largest_difference: float
    """Between the log-likelihoods of a request, in nats: rounding."""

    @property
    def fewer_tokens(self) -> float:
        return self.tokens_alone / self.tokens_shared

    @property
    def speedup(self) -> float:
        return self.seconds_alone / self.seconds_shared


def measure_prefix_sharing(model: "EngramLM", requests: Sequence[tuple[str, str]]) -> PrefixSharing:
    """Score (context, continuation) pairs in both ways; tokenizing is not timed."""
    sequences = [model.scored(before, after) for before, after in model.encode_pairs(requests)]
    values: list[list[float]] = []
    tokens: list[int] = []
    seconds: list[float] = []
    for share in (False, True):
        tokens_before, started = model.passes.tokens_run, time.perf_counter()
        values.append([value for value, _ in score(model.passes, sequences, share)])
        seconds.append(time.perf_counter() - started)
        tokens.append(model.passes.tokens_run - tokens_before)
    difference = max((abs(a - b) for a, b in zip(*values, strict=True)), default=0.0)
    return PrefixSharing(len(requests), tokens[0], tokens[1], seconds[0], seconds[1], difference)
