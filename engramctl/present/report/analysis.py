"""What the memory does: the report's figures and tables from `engramctl analyze`, read from the sweep's `analysis/`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from engramctl.findings.memory_size import judge
from engramctl.present.report.content import NO_VALUE, ReportTable, number
from engramctl.present.report.drawn import PageFigure, drawn
from engramctl.results.analysis_store import AnalysisStore
from engramctl.results.store import Store


@dataclass(frozen=True)
class Finding:
    """One figure about a model, with its tables and sentence."""

    figure: PageFigure
    tables: tuple[ReportTable, ...] = ()
    sentence: str = ""


def findings(sweep: Store) -> Iterator[Finding]:
    """Everything in the sweep's `analysis/`; nothing if it has none. UserError when a table can't be read or makes no sense."""
    store = AnalysisStore(sweep.folder)
    for kind, make in _MAKERS.items():
        for name in store.names(kind):
            with store.values_of(name, kind):
                found = make(store, name)
            yield found


def _depth(store: AnalysisStore, name: str) -> Finding:
    from engramctl.present.figures.depth import depth_figure

    depth = store.read(name, "depth")
    caption = (
        f"Effective depth: A is {depth['trial_a'].iloc[0]}, B {depth['trial_b'].iloc[0]}. Left, how far each layer's prediction is"
        " from the last one's; right, which layers are alike (CKA), dashed where each layer of B stands in A."
    )
    return Finding(drawn("depth", depth_figure(depth), caption))


def _suppress(store: AnalysisStore, name: str) -> Finding:
    from engramctl.present.figures.suppression import suppression_figure

    losses = store.read(name, "suppress")
    caption = f"Trial {name}: validation loss with the memory on and off. The backbone never learned to do without."
    return Finding(drawn("suppression", suppression_figure(losses), caption), (_suppression(losses),))


def _suppress_tasks(store: AnalysisStore, name: str) -> Finding:
    from engramctl.present.figures.suppression import suppressed_tasks_figure

    caption = f"Trial {name}: benchmarks with the memory on and off."
    return Finding(drawn("suppressed benchmarks", suppressed_tasks_figure(store.read(name, "suppress_tasks")), caption))


def _memory(store: AnalysisStore, name: str) -> Finding:
    from engramctl.present.figures.slots import slots_figure

    heads = store.read(name, "memory")
    caption = f"Trial {name}: reads of the rows by rank, their norms, and the gain of each hash head alone."
    sentence = f"Trial {name}: {judge(heads).text}."
    return Finding(drawn("slots", slots_figure(heads, store.read(name, "memory_rows")), caption), (_heads(heads),), sentence)


def _gates(store: AnalysisStore, name: str) -> Finding:
    from engramctl.present.figures.gates import gates_figure

    phrases = store.read(name, "gate_phrases")
    caption = f"Trial {name}: mean gate by group of tokens with 95 % intervals, and the phrases that open it most."
    return Finding(drawn("gates", gates_figure(store.read(name, "gates"), phrases), caption))


def _gate_text(store: AnalysisStore, name: str) -> Finding:
    from engramctl.present.figures.gate_text import gate_text_figure

    caption = f"Trial {name}: the gate at each token."
    return Finding(drawn("gates of a text", gate_text_figure(store.read(name, "gate_text")), caption))


_MAKERS: dict[str, Callable[[AnalysisStore, str], Finding]] = {
    "depth": _depth,
    "suppress": _suppress,
    "suppress_tasks": _suppress_tasks,
    "memory_rows": _memory,  # written after `memory`
    "gate_phrases": _gates,  # written after `gates`
    "gate_text": _gate_text,
}
"""What is shown of a model, by the kind of its table."""


def _suppression(frame: pd.DataFrame) -> ReportTable:
    rows = [
        (
            r["grouping"],
            r["label"],
            f"{r['n_tokens']:,}",
            number(r["loss_on"], ".3f"),
            number(r["loss_off"], ".3f"),
            number(r["difference"], "+.3f"),
            number(100 * r["retained"], ".1f"),
            f"{number(100 * r['retained_low'], '.1f')} to {number(100 * r['retained_high'], '.1f')}" if r["retained_low"] > 0 else NO_VALUE,
        )
        for r in frame.to_dict("records")
    ]
    columns = ("tokens by", "group", "tokens", "loss on", "loss off", "off − on", "retained %", "95 %")
    return ReportTable(
        frame["model"].iloc[0], columns, rows, 2, "Retained: what is left of the right token's probability without the memory."
    )


def _heads(frame: pd.DataFrame) -> ReportTable:
    rows = [
        (
            f"{r['order']}-grams, head {r['head']}",
            f"{r['rows']:,}",
            number(100 * r["rows_touched"] / r["rows"], ".0f"),
            number(r["ngrams_per_row"], ".1f"),
            number(100 * r["shared_reads"], ".0f"),
            number(100 * r["owner_reads"], ".0f"),
            number(100 * r["hottest_share"], ".0f"),
            number(r["loss_alone"], ".3f"),
        )
        for r in frame.to_dict("records")
    ]
    columns = ("head", "rows", "read %", "N-grams a row", "shared reads %", "owner's reads %", "hottest 1 %", "loss alone")
    return ReportTable(frame["model"].iloc[0], columns, rows, 1)
