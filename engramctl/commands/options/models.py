"""Typer arguments and options that name trained models, and the benchmarks to score them on."""

from pathlib import Path
from typing import Annotated

import typer

CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Folder of a finished trial: results/SWEEP/checkpoints/TRIAL, or `final` in it.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Folder with the tasks' data; what is not there comes from the hub.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Most items of each task.", show_default="all")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
