"""Parameters of the paper's models by group: counted, never allocated."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from rich.table import Table

from engram.scaling.accounting import ParameterCounts, count_parameters, table_rows
from engram.scaling.presets import PRESETS
from engramctl.present import console
from engramctl.present.format import NO_VALUE

_GROUPS = {
    "embedding": "vocabulary embedding and head",
    "attention": "attention",
    "router": "routers",
    "shared_experts": "shared experts",
    "routed_experts": "routed experts",
    "dense": "dense feed-forward",
    "norms": "norms",
    "hyper_connections": "hyper-connections",
    "memory_weights": "memory: projections, gate, convolution",
    "memory_tables": "memory: tables",
}
_TOTALS = {
    "p_embedding": "vocabulary embedding and head",
    "p_total": "P_total (without them)",
    "p_active": "P_active: used by one token",
    "p_sparse": "P_sparse: inactive",
    "p_engram": "memory tables",
}


def preset_row(name: str) -> dict[str, Any]:
    """Parameter totals, rho, groups and config of a preset."""
    config = PRESETS[name]
    counts = count_parameters(config)
    groups = {field.name: getattr(counts, field.name) for field in fields(ParameterCounts)}
    totals = {total: getattr(counts, total) for total in _TOTALS}
    slots = table_rows(config.memory) if config.memory else 0
    return {"model": name, **totals, "rho": counts.rho, "n_slots": slots, "groups": groups, "config": config.model_dump(mode="json")}


def preset_table(names: Sequence[str]) -> Table:
    """Groups and totals of presets side by side."""
    rows = [preset_row(name) for name in names]

    def line(label: str, values: list[int]) -> list[str]:
        return [label, *(f"{value:,}" if value else NO_VALUE for value in values)]

    cells = [line(label, [row["groups"][group] for row in rows]) for group, label in _GROUPS.items()]
    cells.append(line("all", [row["p_total"] + row["p_embedding"] for row in rows]))
    cells.append([""] * (len(rows) + 1))
    cells += [line(label, [row[total] for row in rows]) for total, label in _TOTALS.items() if total != "p_embedding"]
    cells.append(["rho: experts' share of P_sparse", *(f"{row['rho']:.4f}" if row["p_sparse"] else NO_VALUE for row in rows)])
    return console.table(("parameters", *names), cells)
