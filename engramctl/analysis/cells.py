"""Numbers in the tables of the terminal."""


def number(value: float | None, form: str = ".3f") -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None or value != value else format(value, form)


def bounds(low: float | None, high: float | None, form: str = ".3f") -> str:
    """0.123 to 0.456, or a dash."""
    return "-" if low is None or low != low else f"{number(low, form)} to {number(high, form)}"
