"""Is a memory too small for its text, too large, or does it fit? Judged only by how its rows are read."""

from dataclasses import dataclass

import pandas as pd

SMALL_OWNERS = 0.5
"""Too small: a smaller share than this of the reads are by the N-gram that owns the row, so most find a row that means something else."""
LARGE_TOUCHED = 0.25
LARGE_OWNERS = 0.9
"""Too large: a smaller share than the first of the rows is read at all, and owners make at least the second share of the reads."""


@dataclass(frozen=True)
class Judgement:
    """A judgement on the size of a memory."""

    text: str
    """One sentence with the numbers behind the verdict."""
    verdict: str
    """too small, fits or too large"""


def judge(heads: pd.DataFrame) -> Judgement:
    """Judge a memory by its table `memory` (columns `results.schema.analysis.HEAD_COLUMNS`)."""
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
    return Judgement(f"{text} that owns the row: {orders}", verdict)
