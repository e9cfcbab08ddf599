"""Effective depth of two models as a table and on the terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from engram.analysis.cka import TOP_LAYERS
from engram.analysis.depth import Depth
from engramctl import console
from engramctl.analysis.cells import bounds, number
from engramctl.analysis.columnar import columns_of, interval
from engramctl.analysis.target import Target

if TYPE_CHECKING:
    from rich.table import Table

    from engramctl.parquet import Columns


def depth_columns(a: Target, b: Target, found: Depth, spans: str) -> "Columns":
    """A row for each number of the comparison."""
    known = {
        "trial_a": a.trial.id,
        "trial_b": b.trial.id,
        "model_a": a.model,
        "model_b": b.model,
        "spans": spans,
        "n_tokens": found.n_tokens,
        "n_documents": found.n_documents,
    }
    return columns_of("depth", ({**known, **row} for row in _rows(found)))


def _rows(found: Depth) -> Iterator[dict[str, Any]]:
    n_a, n_b = found.similarity.estimate.shape
    for i in range(n_a):
        yield {"quantity": "divergence_a", "layer_a": i, "layer_b": None, **interval("value", found.divergence_a, i)}
    for j in range(n_b):
        yield {"quantity": "divergence_b", "layer_a": None, "layer_b": j, **interval("value", found.divergence_b, j)}
    for i in range(n_a):
        for j in range(n_b):
            yield {"quantity": "similarity", "layer_a": i, "layer_b": j, **interval("value", found.similarity, i, j)}
    for j in range(n_b):
        yield {"quantity": "alignment", "layer_a": None, "layer_b": j, **interval("value", found.alignment, j)}


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
        # A layer whose states do not vary is similar to none.
        best = column.loc[column["value"].idxmax()] if column["value"].notna().any() else None
        most = ["-", "-"] if best is None else [f"{best['layer_a']:.0f}", number(best["value"])]
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
