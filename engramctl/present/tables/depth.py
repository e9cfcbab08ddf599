"""Effective depth of two models in the terminal."""

from typing import TYPE_CHECKING

import pandas as pd

from engram.analysis.cka import TOP_LAYERS
from engramctl.present import console
from engramctl.present.format import NO_VALUE, bounds, number

if TYPE_CHECKING:
    from rich.table import Table


def depth_tables(frame: pd.DataFrame) -> list["Table"]:
    """KL divergence by layer, and where each layer of B stands in A."""
    rows = {name: frame[frame["quantity"] == name] for name in frame["quantity"].unique()}
    a, b = rows["divergence_a"].to_dict("records"), rows["divergence_b"].to_dict("records")
    lens = []
    for layer in range(max(len(a), len(b))):
        cells: list[object] = [str(layer)]
        for model in (a, b):
            row = model[layer] if layer < len(model) else {"value": None, "value_low": None, "value_high": None}
            cells += [number(row["value"]), bounds(row["value_low"], row["value_high"])]
        lens.append(cells)
    similar = rows["similarity"]
    stands = []
    for row in rows["alignment"].to_dict("records"):
        column = similar[similar["layer_b"] == row["layer_b"]]
        # A layer whose states don't vary is similar to none.
        best = column.loc[column["value"].idxmax()] if column["value"].notna().any() else None
        most = [NO_VALUE, NO_VALUE] if best is None else [f"{best['layer_a']:.0f}", number(best["value"])]
        where = [number(row["value"], ".2f"), bounds(row["value_low"], row["value_high"], ".2f")]
        stands.append([f"{row['layer_b']:.0f}", *where, *most])
    return [
        console.table(["layer", "KL A", "95 %", "KL B", "95 %"], lens, title="KL divergence from the model's own prediction, nats"),
        console.table(["layer of B", "stands at A's", "95 %", "most similar of A", "CKA"], stands, title="Where B's layers stand in A"),
    ]


def depth_remarks(frame: pd.DataFrame) -> list[str]:
    """What a reader of the tables has to know."""
    first = frame.iloc[0]
    lines = [
        f"A: {first['trial_a']} ({first['model_a']}); B: {first['trial_b']} ({first['model_b']})",
        f"{first['n_tokens']:,} tokens of {first['n_documents']:,} documents; spans: {first['spans']}",
    ]
    n_layers = int(frame["layer_a"].max()) + 1
    if n_layers <= TOP_LAYERS:
        lines.append(
            f"A has {n_layers} layers, no more than the {TOP_LAYERS} that the alignment averages over: its ends are drawn to the middle"
        )
    if frame.loc[frame["quantity"] == "similarity", "value_low"].isna().all():
        lines.append("too few documents for intervals of CKA")
    return lines
