"""By how much a rho may be worse than the best one and still be as good as it."""

from engram.errors import UserError

MARGIN = 0.005
"""Nats per token: less than the losses of two seeds differ by in most sweeps, and less than a tenth of what memory gained in ours."""


def check_margin(margin: float) -> None:
    """UserError unless it is a number above 0."""
    if not 0 < margin < float("inf"):
        raise UserError(f"margin is {margin:g}; it must be a number of nats per token above 0")
