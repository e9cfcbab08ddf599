"""The report's tables apart from those of fits and analyses: points, benchmarks, extensions, cost, configs, origin, trials."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from engramctl.findings.allocation import allocation_summary
from engramctl.findings.scores import task_label
from engramctl.present.format import duration, format_flops, format_rho, human, is_missing, series_name
from engramctl.present.format import number as format_number
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import DIVERGED, FAILED, MISSING, SERIES


@dataclass(frozen=True)
class ReportTable:
    """A table on the page: cells are text, the first `left` columns are words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: int = 1
    note: str = ""


NO_VALUE = "–"
"""Stands in the page's tables in place of a missing number."""


def number(value: float | None, form: str) -> str:
    """A number with a typographic minus, or a dash if there is none."""
    return format_number(value, form, missing=NO_VALUE).replace("-", "−")


def points(trials: pd.DataFrame) -> list[ReportTable]:
    """Mean loss, spread and difference from rho = 1 at every point, one table per size and budget."""
    summary = allocation_summary(trials)
    variants = bool((summary["variant"] != "").any())
    tables = []
    for key, block in summary.groupby(["size", "budget_flops"], sort=False):
        size, budget = cast("tuple[str, float]", key)
        rows = [
            (
                *([str(r["variant"])] if variants else []),
                format_rho(r["rho"]),
                str(r["n_routed_experts"]),
                f"{r['n_slots']:,}",
                str(r["n_seeds"]),
                number(r["val_loss"], ".4f"),
                number(r["val_loss_sd"], ".4f"),
                number(r["delta_rho1"], "+.4f"),
                ", ".join(f"{r[f'n_{status}']} {status}" for status in (DIVERGED, FAILED) if r[f"n_{status}"]),
            )
            for r in block.to_dict("records")
        ]
        names = ("rho", "experts", "slots", "seeds", "loss", "sd", "vs rho = 1", "without a loss")
        tables.append(ReportTable(series_name(size, budget), (("variant", *names) if variants else names), rows, int(variants)))
    return tables


def benchmarks(scores: pd.DataFrame | None) -> list[ReportTable]:
    """Benchmark scores (`findings.scores.comparable`), one row per task and trial; no table without scores."""
    if scores is None:
        return []
    rows = []
    for r in scores.sort_values(["request", "task", "length", *SERIES, "rho", "seed"]).to_dict("records"):
        form, echo = (".1f" if r["is_percent"] else ".4g"), r["floor"] == r["floor"]
        known = (task_label(r), str(r["size"]), format_flops(r["budget_flops"]), str(r["variant"]), format_rho(r["rho"]), str(r["seed"]))
        values = (number(r["score"], form), number(r["stderr"], form), number(r["floor"] if echo else r["chance"], form))
        rows.append((*known, *values, number(r["bpb"], ".3f"), f"{r['n']:,}", f"{100 * r['truncated_share']:.0f} %"))
    columns = ("task", "size", "FLOPs", "variant", "rho", "seed", "score", "±", "chance", "bits/byte", "items", "truncated")
    note = "Accuracies are percent. For RULER chance is the score of an answer that repeats the end of its prompt. ± is over the items."
    return [ReportTable("Benchmarks", columns, rows, 4, note)]


def extensions(rows: pd.DataFrame | None) -> list[ReportTable]:
    """Losses before and after extension to longer sequences (`Store.read_extensions`); no table without extensions."""
    if rows is None or rows.empty:
        return []
    cells = []
    for r in rows.sort_values(["size", "source_budget_flops", "variant", "rho", "seed", "length"]).to_dict("records"):
        known = (
            str(r["trial_id"]),
            str(r["source_trial_id"]),
            format_rho(r["rho"]),
            str(r["seed"]),
            f"{r['source_length']} to {r['length']}",
        )
        losses = (r["val_loss_short_before"], r["val_loss_short_after"], r["val_loss_before"], r["val_loss_after"])
        perplexities = (r["long_ppl_before"], r["long_ppl_after"])
        cells.append((*known, *(number(loss, ".4f") for loss in losses), *(number(value, ".2f") for value in perplexities)))
    columns = ("extension", "of", "rho", "seed", "tokens", "short before", "after", "long before", "after", "LongPPL before", "after")
    note = "Losses in sequences of the old length (short) and of the new one (long). LongPPL compares models with one reference."
    return [ReportTable("Longer sequences", columns, cells, 2, note)]


def cost(trials: pd.DataFrame) -> ReportTable:
    """Tokens, FLOPs, time and memory, by size and budget and in all."""
    rows = []
    for key, block in trials.groupby(["size", "budget_flops"], sort=True):
        size, budget = cast("tuple[str, float]", key)
        rows.append((series_name(size, budget), *_cost_cells(block)))
    rows.append(("all", *_cost_cells(trials)))
    columns = ("trials of", "trials", "tokens", "FLOPs (6 P_active tokens)", "trial time", "time in all", "tokens/s", "peak memory")
    note = "Time is that of optimiser steps and validations, one trial after the other; means are over trials."
    return ReportTable("Finished trials", columns, rows, note=note)


def _cost_cells(block: pd.DataFrame) -> tuple[str, ...]:
    return (
        str(len(block)),
        human(block["tokens"].sum()),
        format_flops(float(block["train_flops"].sum())),
        duration(block["wall_s"].mean()) if block["wall_s"].notna().any() else NO_VALUE,
        duration(block["wall_s"].sum()),
        human(block["tokens_per_s"].mean()) if block["tokens_per_s"].notna().any() else NO_VALUE,
        f"{human(block['peak_rss_bytes'].max())}B" if block["peak_rss_bytes"].notna().any() else NO_VALUE,
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(value)


def configs(trials: pd.DataFrame) -> tuple[ReportTable, ReportTable]:
    """Every field of the trials' configs with its values: first the fields that varied, then those that didn't."""
    values: dict[str, dict[str, None]] = {}
    n = 0
    for text in trials["config"]:
        n += 1
        for path, value in _leaves(json.loads(text)):
            values.setdefault(path, {}).setdefault(value)
    counts = {path: sum(path in dict(_leaves(json.loads(text))) for text in trials["config"]) for path in values}
    varied: list[tuple[str, str]] = []
    fixed: list[tuple[str, str]] = []
    for path, found in values.items():
        if path == "axes" or path.startswith("axes."):
            continue
        listed = sorted(found, key=_in_order) + (["(absent)"] if counts[path] < n else [])
        (varied if len(listed) > 1 else fixed).append((path, _short(listed)))
    differing = ReportTable("Fields of the configs that varied", ("field", "values"), varied, 2)
    return differing, ReportTable("What was the same in all trials", ("field", "value"), fixed, 2)


def _in_order(text: str) -> tuple[float, str]:
    """Sort key: numbers by value, everything else after them by its text."""
    value = json.loads(text)
    return (float(value), "") if isinstance(value, int | float) else (float("inf"), text)


def _short(values: list[str], most: int = 12) -> str:
    shown = ", ".join(values[:most])
    return shown if len(values) <= most else f"{shown}, … ({len(values)} values)"


def origin(trials: pd.DataFrame) -> ReportTable:
    """Code, corpus, tokenizer, libraries and machines behind the rows."""
    names = {
        "git_sha": "commit of the code",
        "corpus": "corpus",
        "corpus_fingerprint": "corpus fingerprint",
        "tokenizer_fingerprint": "tokenizer fingerprint",
        "versions": "versions",
        "hostname": "machine",
        "device": "device",
        "precision": "precision of products",
    }
    rows = [(label, ", ".join(sorted({str(v) for v in trials[column].dropna()}))) for column, label in names.items()]
    rows.append(("first trial started", str(trials["started_at"].min())))
    rows.append(("last trial ended", str(trials["finished_at"].max())))
    return ReportTable("", ("what", "value"), rows, 2)


def every_trial(sweep: SweepResults) -> ReportTable:
    """All trials, including those without a loss."""
    columns = ("trial", "size", "FLOPs", "variant", "rho", "seed", "status", "loss", "se", "bits/byte", "time")
    rows = []
    for t in sweep.trials.sort_values([*SERIES, "rho", "seed"]).to_dict("records"):
        rows.append(
            (
                t["trial_id"],
                t["size"],
                format_flops(t["budget_flops"]),
                t["variant"],
                format_rho(t["rho"]),
                str(t["seed"]),
                t["status"],
                number(t["val_loss"], ".4f"),
                number(t["val_loss_se"], ".4f"),
                number(t["val_bpb"], ".4f"),
                NO_VALUE if is_missing(t["wall_s"]) else duration(t["wall_s"]),
            )
        )
    for t in sweep.missing.to_dict("records"):
        known = (t["trial_id"], t["size"], format_flops(t["budget_flops"]), t["variant"], format_rho(t["rho"]), str(t["seed"]))
        rows.append((*known, MISSING, *[NO_VALUE] * 4))
    return ReportTable("", columns, rows, 7)
