"""Typer arguments and options of commands that read a results folder."""

from pathlib import Path
from typing import Annotated

import typer

SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="Name of the sweep: its folder in --results.")]

ResultsOption = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder that holds one folder of results for each sweep.")]

MarginOption = Annotated[
    float, typer.Option("--margin", metavar="NATS", help="How much worse than the best a rho may be and still count as near it.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print strict JSON on stdout; talk stays on stderr.")]
