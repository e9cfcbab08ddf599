"""The training curve of a trial: lists of equal length by column, one element a point."""

from typing import Any

CURVE_POINTS = 200
"""Points of a curve, about."""
TAIL_FRACTION = 0.05
"""Share of the steps at the end over which the final training loss and loads are averaged."""
CURVE_COLUMNS = (
    "step", "tokens", "train_loss", "learning_rate", "grad_norm", "load_max_over_mean", "load_cv", "val_loss", "copy_loss", "expert_loads",
)  # fmt: skip

Curve = dict[str, list[Any]]


def empty_curve() -> Curve:
    """A curve without points."""
    return {name: [] for name in CURVE_COLUMNS}


def add_point(curve: Curve, **values: Any) -> None:
    """Add a point; columns without a value get None."""
    assert values.keys() <= curve.keys()
    for name, column in curve.items():
        column.append(values.get(name))


def tail_mean(curve: Curve, column: str, steps: int) -> float:
    """Mean of a column over the last `TAIL_FRACTION` of a trial's `steps`, its last point at least."""
    first = steps * (1 - TAIL_FRACTION)
    tail = [v for s, v in zip(curve["step"], curve[column], strict=True) if s is not None and v is not None and s > first]
    return sum(tail) / len(tail)
