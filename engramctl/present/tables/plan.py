"""What a sweep would train, in the terminal."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from engram.memory.designs.registry import NONE
from engram.scaling.recipe import DEFAULT_RECIPE
from engramctl.present import console
from engramctl.present.format import counted, duration, human
from engramctl.sweep.models import DEFAULT_ATTENTION, DEFAULT_DESIGN
from engramctl.sweep.plan import Plan


def plan_tables(plan: Plan) -> Iterator[Table]:
    """One table per size, budget and number of tokens; seeds share a line, as they only differ in what is done."""
    keys = dict.fromkeys((row["size"], row["budget_flops"], row["tokens"]) for row in plan.rows)
    for size, budget, tokens in keys:
        block = [row for row in plan.rows if (row["size"], row["budget_flops"], row["tokens"]) == (size, budget, tokens)]
        first = [row for row in block if row["seed"] == block[0]["seed"]]
        seeds = len({row["seed"] for row in block})
        title = (
            f"{size}{_choices(block)}: {budget:.3g} FLOPs, {human(tokens)} tokens = {first[0]['steps']} steps"
            f" x {first[0]['batch_size']} x {first[0]['seq_len']}, {counted(seeds, 'seed')}"
        )
        variants = any(row["variant"] for row in block)
        columns = ("rho", "experts", "shared", "slots", "P_total", "P_active", "time", "memory", "done")
        cells = []
        for row in first:
            same = [other for other in block if (other["variant"], other["rho"]) == (row["variant"], row["rho"])]
            cells.append(
                (
                    *([row["variant"]] if variants else []),
                    f"{row['rho']:.3g}",
                    row["n_routed_experts"],
                    row["shared_width"],
                    human(row["n_slots"]),
                    human(row["p_total"], digits=4),
                    human(row["p_active"], digits=4),
                    "~" + duration(row["estimated_s"]),
                    human(row["memory_bytes"]) + "B",
                    f"{sum(other['done'] for other in same)}/{len(same)}",
                )
            )
        yield console.table(("variant", *columns) if variants else columns, cells, left=int(variants), title=title)


def _choices(rows: list[dict[str, Any]]) -> str:
    """In brackets, whatever differs from the default in design, branches, attention and optimiser."""
    if any(row["variant"] for row in rows):
        return ""  # the variants' names say it
    first, designs = rows[0], {row["memory_design"] for row in rows} - {NONE, DEFAULT_DESIGN}
    chosen = [*sorted(designs)]
    chosen += [f"{first['branches']} branches"] if first["branches"] > 1 else []
    chosen += [first["attention"]] if first["attention"] != DEFAULT_ATTENTION else []
    chosen += [first["optimizer"]] if first["optimizer"] != DEFAULT_RECIPE.optimizer else []
    return f" ({', '.join(chosen)})" if chosen else ""
