"""What computing common beginnings once saves: the findings of `benchmarks.prefix_sharing`."""

from dataclasses import dataclass

from engram.benchmarks.results.measured import Measured


@dataclass(frozen=True)
class PrefixSharing:
    """The same requests scored in turns: each by itself (in batches), and with common beginnings computed once."""

    n_requests: int
    tokens_alone: int
    """Tokens that went through the model."""
    tokens_shared: int
    seconds_alone: Measured
    seconds_shared: Measured
    speedup: Measured
    """Alone over shared, turn by turn."""
    largest_difference: float
    """Between the two log-likelihoods of a request, in nats: rounding."""

    @property
    def fewer_tokens(self) -> float:
        """How many times fewer tokens go through the model."""
        return self.tokens_alone / self.tokens_shared
