"""Typer arguments and options that `sweep` and `plan` share, and what they say together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engram.errors import UserError

SweepNameArgument = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A sweep by name (from sweeps/) or a .yaml file.")]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option("--budget", metavar="B", help="FLOPs for each trial (1e13; several with commas), or a wall time for the sweep (20m, 2h)."),
]
RhoOption = Annotated[list[str] | None, typer.Option("--rho", metavar="R", help="Shares of experts, e.g. 0,0.5,1.")]
SizeOption = Annotated[list[str] | None, typer.Option("--size", metavar="S", help="Sizes of the ladder, e.g. 1m,3m.")]
SeedsOption = Annotated[int | None, typer.Option("--seeds", metavar="N", min=1, help="Seeds 0 .. N-1 for each point.")]
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
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, help="Trials at one time; default: one for each core, or each GPU.")
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="D", help="auto, cpu, cuda or cuda:N.")]


def items(values: Sequence[str] | None) -> list[str]:
    """Values of an option that may be given several times, each with commas."""
    return [item.strip() for value in values or [] for item in value.split(",") if item.strip()]


def _numbers(option: str, values: Sequence[str] | None) -> list[float]:
    try:
        return [float(item) for item in items(values)]
    except ValueError as problem:
        raise UserError(f"{option}: {str(problem).split(': ')[-1]} is not a number; numbers are separated by commas") from None


def overrides(
    budget: Sequence[str] | None,
    rho: Sequence[str] | None,
    size: Sequence[str] | None,
    seeds: int | None,
    corpus: str | None,
    corpus_bytes: str | None,
    text_column: str | None,
    tokenizer: str | None,
    vocab_size: int | None,
    fields: Sequence[str] | None,
) -> dict[str, Any]:
    """What the options change in a sweep file; options that were not given change nothing."""
    changes: dict[str, Any] = {
        "budgets": items(budget),
        "rhos": _numbers("--rho", rho),
        "sizes": items(size),
        "seeds": seeds,
        "corpus": corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size),
    }
    given = {"budgets": budget, "rhos": rho, "sizes": size, "seeds": seeds, "corpus": changes["corpus"] or None}
    return {name: value for name, value in changes.items() if given[name] is not None} | field_overrides(fields)


def field_overrides(settings: Sequence[str] | None) -> dict[str, Any]:
    """`model.memory.design=value` -> {"model": {"memory": {"design": "value"}}}; values are read as YAML."""
    import yaml

    changes: dict[str, Any] = {}
    for setting in settings or []:
        path, equals, text = setting.partition("=")
        *groups, field = path.split(".")
        if not equals or not field or not groups or groups[0] not in ("model", "train") or not all(groups):
            raise UserError(f"--set {setting}: a field below model or train and its value are expected, such as model.branches=4")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--set {setting}: {text!r} is not a value") from None
        inner = changes
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise UserError(f"--set {setting}: {group} was set to a value before")
        inner[field] = value
    return changes


def corpus_overrides(
    corpus: str | None, corpus_bytes: str | None, text_column: str | None, tokenizer: str | None, vocab_size: int | None
) -> dict[str, Any]:
    """Fields of a CorpusSpec that the options set."""
    from engramctl.units import parse_bytes

    fields = {
        "source": corpus,
        "max_bytes": None if corpus_bytes is None else parse_bytes(corpus_bytes),
        "text_column": text_column,
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
    }
    return {name: value for name, value in fields.items() if value is not None}


def sweep_name(argument: str, name: str | None) -> str:
    """The results folder's name."""
    return name or Path(argument).stem
