"""Benchmark scores in the terminal."""

from typing import TYPE_CHECKING, cast

import pandas as pd

from engramctl.findings.scores import asked_for, task_label
from engramctl.present import console
from engramctl.present.format import format_flops, format_rho, is_missing, number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def shown_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows to show: what was asked for and, for a single model, the groups in it and RULER's tasks."""
    shown = asked_for(scores)
    if scores["trial_id"].nunique() == 1:
        shown = scores[scores.index.isin(shown.index) | scores["is_group"] | scores["length"].notna()]
    return shown


def score_table(scores: pd.DataFrame) -> "Table":
    """Score, chance and bits per byte, task by task, with the trials of each task sorted by rho."""
    rows = shown_rows(scores)
    models = rows.drop_duplicates("trial_id")
    several = len(models) > 1
    variants, budgets = models["variant"].any(), models["budget_flops"].nunique() > 1 or models["size"].nunique() > 1
    if several:
        order = {key: i for i, key in enumerate(dict.fromkeys(_task_keys(rows)))}
        rows = rows.assign(place=[order[key] for key in _task_keys(rows)])
        rows = rows.sort_values(["place", "size", "budget_flops", "variant", "rho", "seed"], kind="stable")
    cells = []
    for r in rows.to_dict("records"):
        model = [*([r["size"], format_flops(r["budget_flops"])] if budgets else []), *([r["variant"]] if variants else [])]
        model += [format_rho(r["rho"]), r["seed"]]
        name = f"  {r['task']}" if r["group"] else task_label(r)
        form = ".1f" if r["is_percent"] else ".4g"
        cells.append(
            [
                name,
                r["metric"],
                *(model if several else []),
                number(r["score"], form),
                number(r["stderr"], form),
                number(r["chance"], form) if is_missing(r["floor"]) else number(r["floor"], form) + "*",
                number(r["bpb"], ".3f"),
                f"{r['n']:,}",
                f"{100 * r['truncated_share']:.0f}%",
            ]
        )
    names = [*(["size", "FLOPs"] if budgets else []), *(["variant"] if variants else []), "rho", "seed"] if several else []
    return console.table(["task", "metric", *names, "score", "+-", "chance", "bits/byte", "items", "truncated"], cells, left=2)


def _task_keys(rows: pd.DataFrame) -> list[tuple[str, str, float]]:
    return list(zip(rows["request"], rows["task"], rows["length"].fillna(0), strict=True))


def remarks(scores: pd.DataFrame) -> list[str]:
    """What a reader of the table needs to know, a line each."""
    lines = []
    if scores["floor"].notna().any():
        lines.append("* of an answer that repeats the end of its prompt")
    cut = asked_for(scores)
    cut = cut[cut["truncated_share"] > 0]
    if len(cut):
        lengths = ", ".join(str(length) for length in sorted(cut["max_length"].unique()))
        tasks = ", ".join(dict.fromkeys(cut["task"]))
        lines.append(f"truncated: prompts of {tasks} lost their beginning: the models read {lengths} tokens at a time (--max-length)")
    return lines


def print_scores(terminal: "Console", scores: pd.DataFrame) -> None:
    """The table of scores and the remarks on it."""
    terminal.print(score_table(scores))
    for line in remarks(scores):
        terminal.print(line, markup=False, style="dim", soft_wrap=True)


def ruler_table(name: str, rows: pd.DataFrame) -> "Table":
    """RULER's categories in one comparison of `findings.ruler.matched`: means over seeds, one column per length."""
    lengths = sorted(rows["length"].unique())
    cells = []
    for key, mine in rows.groupby(["category", "rho", "budget_flops", "extended"], sort=False):
        category, rho, budget, extended = cast("tuple[str, float, float, bool]", key)
        by_length = mine.groupby("length")["score"].mean()
        model = [category, "extended" if extended else "as trained", format_flops(budget), format_rho(rho), mine["source_id"].nunique()]
        cells.append([*model, *(number(by_length.get(length), ".1f") for length in lengths)])
    for one, mine in rows.groupby("category", sort=False):
        floor = mine.groupby("length")["floor"].mean()
        cells.append([str(one), "echo", "", "", "", *(number(floor.get(length), ".1f") for length in lengths)])
    cells.sort(key=lambda row: list(rows["category"].unique()).index(row[0]))
    return console.table(["category", "", "FLOPs", "rho", "seeds", *map(str, lengths)], cells, left=2, title=f"RULER, {name}")
