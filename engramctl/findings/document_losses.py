"""The losses of many trials on each validation document, as arrays: the input of fits and paired comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from engram.errors import UserError
from engramctl.results.store import Store
from engramctl.results.trial_table import FINISHED

if TYPE_CHECKING:
    import pyarrow as pa

    from engram.fitting.results import Observations

_COLUMNS = ["document", "n_tokens", "loss_sum", "overlap"]
_TEXT = {"corpus_fingerprint": "corpus", "tokenizer_fingerprint": "tokenizer"}


@dataclass(frozen=True)
class DocumentLosses:
    """Losses of n trials on the same D documents, in the order of the documents' ids."""

    document: np.ndarray
    """Ids, object [D]."""
    n_tokens: np.ndarray
    """Predicted tokens of each document, float [D]."""
    loss_sum: np.ndarray
    """Sum of the token losses of each trial on each document, nats, float [n, D]."""
    overlap: np.ndarray
    """Share of each document's tokens that lie in a 32-gram of training, float [D]; NaN where the corpus does not know it."""


def observations(store: Store, trials: pd.DataFrame, x: str) -> "tuple[Observations, np.ndarray]":
    """Losses of finished trials together with one of their columns, in the order of the rows, and the documents' overlap with training.

    Args:
        store: the sweep that the trials belong to.
        trials: rows of its trials table; at least one, all finished.
        x: the column that becomes `Observations.x`: rho or n_slots.

    Raises:
        UserError: a trial has no documents, or two trials were validated on different documents.
        ValueError: there is no trial, or one has not finished.
    """
    from engram.fitting.results import Observations

    if trials.empty or (trials["status"] != FINISHED).any():
        raise ValueError("finished trials are expected, at least one")
    require_same_text(trials)
    losses = document_losses([(store, trial_id) for trial_id in trials["trial_id"]])
    made = Observations(
        x=trials[x].to_numpy(dtype=float), seed=trials["seed"].to_numpy(dtype=int), loss_sum=losses.loss_sum, n_tokens=losses.n_tokens
    )
    return made, losses.overlap


def require_same_text(trials: pd.DataFrame) -> None:
    """UserError naming two trials whose corpora or tokenizers differ, if any: their losses can't be compared."""
    for column, what in _TEXT.items():
        other = trials[trials[column] != trials[column].iloc[0]] if len(trials) else trials
        if len(other):
            one, two = trials.iloc[0], other.iloc[0]
            raise UserError(
                f"trials {_name(one)} and {_name(two)} differ in their {what} (fingerprints {one[column][:12]} and {two[column][:12]}): "
                "losses compare on the same text and tokens only"
            )


def _name(trial: "pd.Series[str]") -> str:
    return f"{trial['sweep']}/{trial['trial_id']}"


def document_losses(trials: Sequence[tuple[Store, str]]) -> DocumentLosses:
    """Read the losses of trials, given as pairs of store and id, and align them by document.

    Raises UserError when a trial has no documents or two trials were validated on different documents.
    """
    tables = _documents(trials)
    first = tables[0]
    for (store, trial_id), table in zip(trials, tables, strict=True):
        if not (table["document"].equals(first["document"]) and table["n_tokens"].equals(first["n_tokens"])):
            raise UserError(
                f"trials {trials[0][0].sweep}/{trials[0][1]} and {store.sweep}/{trial_id} were validated on different documents: "
                f"{_size(first)} and {_size(table)}"
            )
    return DocumentLosses(
        document=first["document"].to_numpy(),
        n_tokens=first["n_tokens"].to_numpy().astype(float),
        loss_sum=np.stack([table["loss_sum"].to_numpy() for table in tables]),
        overlap=np.array(first["overlap"].to_pylist(), dtype=float),
    )


def _documents(trials: Sequence[tuple[Store, str]]) -> "list[pa.Table]":
    """The documents of each trial, sorted by document id."""
    tables: list[pa.Table] = []
    for store, group in groupby(trials, key=lambda trial: trial[0]):
        tables += store.read_documents_tables([trial_id for _, trial_id in group], _COLUMNS)
    order, same_order, sorted_already = np.empty(0, dtype=int), None, False
    for i, table in enumerate(tables):
        # All trials of a sweep have the documents in the same order, so a thousand tables need to be sorted once, and mostly not at all.
        if same_order is None or not table["document"].equals(same_order):
            same_order = table["document"]
            order = np.argsort(same_order.to_numpy(), kind="stable")
            sorted_already = bool((order == np.arange(len(order))).all())
        if not sorted_already:
            tables[i] = table.take(order)
    return tables


def _size(table: "pa.Table") -> str:
    return f"{len(table)} ({sum(table['n_tokens'].to_pylist()):,} tokens)"
