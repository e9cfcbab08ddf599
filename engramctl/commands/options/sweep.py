"""Typer arguments and options about sweeps, and what their values come to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.errors import UserError
from engramctl.commands.options.parse import items, numbers, one_of

if TYPE_CHECKING:
    from engram.memory.placement.settings import ServingPlacement, TablePlacement

AUTO = "auto"
_MOST_DIGITS = 6

SweepNameArgument = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A sweep by name (from sweeps/) or a .yaml file.")]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="B",
        help="FLOPs for each trial (1e13), tokens for each active parameter (20tpp), several with commas; or a wall time (20m).",
    ),
]
RhoOption = Annotated[list[str] | None, typer.Option("--rho", metavar="R", help="Shares of experts, e.g. 0,0.5,1.")]
SizeOption = Annotated[list[str] | None, typer.Option("--size", metavar="S", help="Sizes of the ladder, e.g. 1m,3m.")]
SeedsOption = Annotated[int | None, typer.Option("--seeds", metavar="N", min=1, help="Seeds 0 .. N-1 for each point.")]
SlotsOption = Annotated[
    list[str] | None, typer.Option("--slots", metavar="N", help="Memory rows added to a fixed backbone instead of --rho, e.g. 0,1e4,1e5.")
]
AxisOption = Annotated[
    list[str] | None,
    typer.Option(
        "--axis", metavar="FIELD=VALUES", help="A further axis: a field below model or train, e.g. train.learning_rate=0.01,0.02."
    ),
]
VariantOption = Annotated[
    list[str] | None, typer.Option("--variant", metavar="NAME", help="Run only this variant of the sweep's axes; may be repeated.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field below model or train, e.g. model.memory.design=value or train.optimizer.kind=adamw; may be repeated.",
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="TEXT", help="Folder of the results below --results; default: the sweep's name.")
]


def _number_or_auto(text: str) -> int | None:
    if text == AUTO:
        return None
    if not text.isdecimal() or len(text) > _MOST_DIGITS or not int(text):
        raise typer.BadParameter(f"{text[:60]} is neither {AUTO} nor a whole number from 1 up.")
    return int(text)


WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N|auto",
        parser=_number_or_auto,
        help="Trials at one time. auto, the default: one for each core; on GPUs as many as a short measurement finds to pay.",
    ),
]
DevicesPerTrialOption = Annotated[
    int,
    typer.Option("--devices-per-trial", metavar="N", min=1, help="Train each trial on N devices (cores or GPUs) at once, a process each."),
]
TablesOption = Annotated[
    str,
    typer.Option("--tables", metavar="W", help="Where memory tables lie: process (in the model), host (RAM) or disk; losses are equal."),
]
DEFAULT_TABLE_CACHE = "256MiB"
TableCacheOption = Annotated[
    str, typer.Option("--table-cache", metavar="BYTES", help="RAM for the hot rows of tables on disk, for each trial.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="URL", help="A running Ray cluster: ray://HOST:10001, HOST:PORT or auto.")
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="D", help="auto, cpu, cuda or cuda:N.")]

CheckpointEveryOption = Annotated[
    str, typer.Option("--checkpoint-every", metavar="T", help="Time between checkpoints of a trial, e.g. 90s or 10m.")
]


def axis_overrides(
    budget: Sequence[str] | None,
    rho: Sequence[str] | None,
    size: Sequence[str] | None,
    seeds: int | None,
    slots: Sequence[str] | None,
    axis: Sequence[str] | None,
    variant: Sequence[str] | None,
) -> dict[str, Any]:
    """The changes that the options make to the axes of a sweep file; an option that was not given changes nothing."""
    given = {
        "budgets": (budget, lambda: items(budget)),
        "rhos": (rho, lambda: numbers("--rho", rho)),
        "sizes": (size, lambda: items(size)),
        "seeds": (seeds, lambda: seeds),
        "slots": (slots, lambda: numbers("--slots", slots)),
        "axes": (axis, lambda: _axes(axis or [])),
        "variants": (variant, lambda: [name.strip() for name in variant or []]),
    }
    return {name: value() for name, (option, value) in given.items() if option is not None}


def _axes(given: Sequence[str]) -> dict[str, Any]:
    """The axes of `--axis`; UserError naming the one that is not a field with values, or that is given twice."""
    from engramctl.sweep.yaml_text import read_yaml, shortened

    axes: dict[str, Any] = {}
    for text in given:
        field, equals, values = text.partition("=")
        listed = read_yaml(f"[{values}]", f"--axis {shortened(text)}") if equals else None
        if not isinstance(listed, list) or not listed:
            raise UserError(f"--axis {text}: a field and its values are expected, such as train.learning_rate=0.01,0.02")
        if field in axes:
            raise UserError(f"--axis {field} is given twice; all its values belong into one, separated by commas")
        axes[field] = listed
    return axes


def field_overrides(settings: Sequence[str] | None) -> dict[str, Any]:
    """`model.memory.design=value` -> {"model": {"memory": {"design": "value"}}}; values are parsed as YAML."""
    from engramctl.sweep.limits import MAX_DEPTH
    from engramctl.sweep.yaml_text import read_yaml, shortened

    changes: dict[str, Any] = {}
    for setting in settings or []:
        path, equals, text = setting.partition("=")
        *groups, field = path.split(".")
        if not equals or not field or not groups or groups[0] not in ("model", "train") or not all(groups) or len(groups) > MAX_DEPTH:
            raise UserError(f"--set {setting}: a field below model or train and its value are expected, such as model.branches=4")
        value = read_yaml(text, f"--set {shortened(path)}={shortened(text)}: {shortened(text)!r} is not a value")
        inner = changes
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise UserError(f"--set {setting}: {group} was set to a value before")
        if field in inner:
            raise UserError(f"--set {setting}: {path} was set before")
        inner[field] = value
    return changes


def corpus_overrides(
    corpus: str | None, corpus_bytes: str | None, text_column: str | None, tokenizer: str | None, vocab_size: int | None
) -> dict[str, Any]:
    """The fields of a CorpusSpec that the options set."""
    from engramctl.sweep.units import parse_bytes

    fields = {
        "source": corpus,
        "max_bytes": None if corpus_bytes is None else parse_bytes(corpus_bytes),
        "text_column": text_column,
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
    }
    return {name: value for name, value in fields.items() if value is not None}


def table_placement(tables: str, cache: str, devices: int) -> "TablePlacement":
    """Where each trial's memory tables go, from --tables and --table-cache."""
    from engram.memory.placement.settings import PLACES, TablePlacement
    from engram.training.replicas import check_placement
    from engramctl.sweep.units import parse_bytes

    one_of("--tables", tables, PLACES)
    placement = TablePlacement.model_validate({"kind": tables, "cache_bytes": parse_bytes(cache)})
    check_placement(devices, placement)
    return placement


def serving_placement(tables: str, cache: str, row_format: str) -> "ServingPlacement":
    """Where a trained model's memory tables go, from --tables, --table-cache and --row-format."""
    from engram.memory.placement.formats import FORMATS
    from engram.memory.placement.settings import PLACES, ServingPlacement
    from engramctl.sweep.units import parse_bytes

    one_of("--tables", tables, PLACES)
    if row_format not in FORMATS:
        raise UserError(f"--row-format {row_format}: {', '.join(FORMATS)} are allowed")
    if tables == "process" and row_format != "fp32":
        raise UserError(f"--row-format {row_format} is for --tables host or disk; in the model rows are fp32")
    return ServingPlacement.model_validate({"kind": tables, "cache_bytes": parse_bytes(cache), "row_format": row_format})


def sweep_name(argument: str, name: str | None) -> str:
    """Name of the sweep's folder: that of --name, else the sweep file's."""
    return name or Path(argument).stem
