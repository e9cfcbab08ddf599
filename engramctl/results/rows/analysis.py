"""Rows of the tables in `analysis/`, built from what `engram.analysis` returns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engramctl.present.format import plain, trial_name
from engramctl.results.schema.analysis import TABLES

if TYPE_CHECKING:
    from engram.analysis.depth import Depth
    from engram.analysis.gates import TextGates, ValidationGates
    from engram.analysis.heads import HeadLosses
    from engram.analysis.intervals import Estimates
    from engram.analysis.slot_use import HeadUse
    from engram.analysis.suppression import SuppressedLosses
    from engram.config.trial import TrialConfig
    from engramctl.results.parquet import Columns


def columns_of(kind: str, rows: Iterable[Mapping[str, Any]]) -> "Columns":
    """Rows as columns, in the order of the schema; NaN and infinity, which mean that there is no number, become null."""
    listed = list(rows)
    return {column.name: [plain(row[column.name]) for row in listed] for column in TABLES[kind]}


def _of(trial: "TrialConfig") -> dict[str, str]:
    """The columns about the model that every table has."""
    return {"trial_id": trial.id, "model": trial_name(trial)}


def _interval(name: str, estimates: "Estimates", *at: int) -> dict[str, Any]:
    """An estimate and its bounds, as columns of a row."""
    return {name: estimates.estimate[at], f"{name}_low": estimates.low[at], f"{name}_high": estimates.high[at]}


def depth_columns(a: "TrialConfig", b: "TrialConfig", found: "Depth", spans: str) -> "Columns":
    """One row per number of the comparison."""
    known = {
        "trial_a": a.id,
        "trial_b": b.id,
        "model_a": trial_name(a),
        "model_b": trial_name(b),
        "spans": spans,
        "n_tokens": found.n_tokens,
        "n_documents": found.n_documents,
    }
    return columns_of("depth", ({**known, **row} for row in _depth_rows(found)))


def _depth_rows(found: "Depth") -> Iterator[dict[str, Any]]:
    n_a, n_b = found.similarity.estimate.shape
    for i in range(n_a):
        yield {"quantity": "divergence_a", "layer_a": i, "layer_b": None, **_interval("value", found.divergence_a, i)}
    for j in range(n_b):
        yield {"quantity": "divergence_b", "layer_a": None, "layer_b": j, **_interval("value", found.divergence_b, j)}
    for i in range(n_a):
        for j in range(n_b):
            yield {"quantity": "similarity", "layer_a": i, "layer_b": j, **_interval("value", found.similarity, i, j)}
    for j in range(n_b):
        yield {"quantity": "alignment", "layer_a": None, "layer_b": j, **_interval("value", found.alignment, j)}


def gate_columns(trial: "TrialConfig", found: "ValidationGates") -> "Columns":
    """One row per layer, branch and group with at least one token."""
    known = _of(trial)
    return columns_of("gates", ({**known, **row} for row in _gate_rows(found)))


def _gate_rows(found: "ValidationGates") -> Iterator[dict[str, Any]]:
    for grouping in found.groups:
        n_sites, branches, n_groups = grouping.gate.estimate.shape
        for s in range(n_sites):
            for m in range(branches):
                for g in range(n_groups):
                    if grouping.n_tokens[g]:
                        yield {
                            "layer": found.layers[s],
                            "branch": m,
                            "grouping": grouping.name,
                            "label": grouping.labels[g],
                            "n_tokens": grouping.n_tokens[g],
                            **_interval("gate", grouping.gate, s, m, g),
                        }


def phrase_columns(trial: "TrialConfig", found: "ValidationGates") -> "Columns":
    """One row per layer and phrase."""
    known = _of(trial)
    return columns_of(
        "gate_phrases",
        (
            {**known, "layer": layer, "rank": rank, "text": phrase.text, "gate": phrase.gate, "occurrences": phrase.occurrences}
            for layer, phrases in found.phrases.items()
            for rank, phrase in enumerate(phrases, 1)
        ),
    )


def text_columns(trial: "TrialConfig", found: "TextGates") -> "Columns":
    """One row per layer, branch and token."""
    known = _of(trial)
    return columns_of(
        "gate_text",
        (
            {**known, "layer": layer, "branch": m, "position": t, "token": token, "gate": found.gates[s, t, m]}
            for s, layer in enumerate(found.layers)
            for m in range(found.gates.shape[2])
            for t, token in enumerate(found.tokens)
        ),
    )


_HEAD_USE = (
    "table_set", "order", "head", "rows", "rows_touched", "distinct_ngrams",
    "ngrams_per_row", "shared_reads", "owner_reads", "hottest_share",
)  # fmt: skip
"""Columns of a hash head that `HeadUse` has under the same name."""


def head_columns(trial: "TrialConfig", use: "Sequence[HeadUse]", losses: "HeadLosses") -> "Columns":
    """One row per hash head."""
    place = {head: i for i, head in enumerate(losses.heads)}
    rows = []
    for one in use:
        i = place[one.table_set, one.order, one.head]
        rows.append(
            {
                **_of(trial),
                **{name: getattr(one, name) for name in _HEAD_USE},
                **_interval("loss_alone", losses.alone, i),
                **_interval("share_alone", losses.share, i),
                "loss_all": losses.all.estimate,
                "loss_none": losses.none.estimate,
            }
        )
    return columns_of("memory", rows)


def row_columns(trial: "TrialConfig", use: "Sequence[HeadUse]") -> "Columns":
    """Zipf curve and norms of every hash head, one row per point."""
    rows = []
    for one in use:
        known = {**_of(trial), "table_set": one.table_set, "order": one.order, "head": one.head}
        for rank, reads in zip(one.zipf_rank, one.zipf_reads, strict=True):
            rows.append({**known, "curve": "zipf", "rank": rank, "reads": reads, "n_rows": None, "norm": None})
        for reads, n_rows, norm in zip(one.norm_reads, one.norm_rows, one.norm, strict=True):
            rows.append({**known, "curve": "norm", "rank": None, "reads": reads, "n_rows": n_rows, "norm": norm})
    return columns_of("memory_rows", rows)


def suppression_columns(trial: "TrialConfig", found: "Sequence[SuppressedLosses]") -> "Columns":
    """One row per group with at least one token."""
    known = _of(trial)
    return columns_of("suppress", ({**known, **row} for row in _suppression_rows(found)))


def _suppression_rows(found: "Sequence[SuppressedLosses]") -> Iterator[dict[str, Any]]:
    for losses in found:
        for i, label in enumerate(losses.labels):
            if losses.n_tokens[i]:
                yield {
                    "grouping": losses.name,
                    "label": label,
                    "n_tokens": losses.n_tokens[i],
                    **_interval("loss_on", losses.on, i),
                    **_interval("loss_off", losses.off, i),
                    **_interval("difference", losses.difference, i),
                    **_interval("retained", losses.retained, i),
                }
