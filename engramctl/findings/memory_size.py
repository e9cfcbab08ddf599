"""Is a memory too small for its text, too large, or does it fit? From how its rows are read alone."""

from dataclasses import dataclass

import pandas as pd

SMALL_OWNERS = 0.5
"""Owners with less than this share of the reads: most reads find a row that stands for something else. Too small."""
LARGE_TOUCHED = 0.25
LARGE_OWNERS = 0.9
"""Fewer rows than that read at all, and owners with that share of the reads or more: too large."""


@dataclass(frozen=True)
class Judgement:
    """One line about a memory, and the numbers behind it."""

    text: str
    verdict: str
    """too small, fits or too large"""
    touched: float
    """Share of all rows that the text reads."""
    owners: float
    """Share of the reads that are of the N-gram that reads their row most, mean over heads."""


def judge(heads: pd.DataFrame) -> Judgement:
    """From the rows of a `memory` table (`columns.HEAD_COLUMNS`)."""
    touched = float(heads["rows_touched"].sum() / heads["rows"].sum())
    owners = float(heads["owner_reads"].mean())
    if owners < SMALL_OWNERS:
        verdict = "too small"
    elif touched < LARGE_TOUCHED and owners >= LARGE_OWNERS:
        verdict = "too large"
    else:
        verdict = "fits"
    by_order = heads.groupby("order")[["owner_reads", "ngrams_per_row"]].mean()
    orders = ", ".join(
        f"{order}-grams {100 * row['owner_reads']:.0f} % ({row['ngrams_per_row']:.1f} to a row)" for order, row in by_order.iterrows()
    )
    said = "fits this text" if verdict == "fits" else f"is {verdict} for this text"
    text = f"the memory {said}: {100 * touched:.0f} % of its rows are read; of the reads {100 * owners:.0f} % are of the N-gram"
    return Judgement(
        f"{text} that owns the row: {orders}",
        verdict,
        touched,
        owners,
    )
