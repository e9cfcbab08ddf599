"""Typer arguments and options of `engramctl analyze`."""

from pathlib import Path
from typing import Annotated

import typer

MODEL = "A checkpoint's folder, or SWEEP/TRIAL, where TRIAL is an id or its beginning"
ModelArgument = Annotated[str, typer.Argument(metavar="CKPT", help=f"{MODEL}.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder for the figures.", show_default="figures/ of the sweep or checkpoint")
]
FormatOption = Annotated[str, typer.Option("--format", metavar="F", help="Figures to write: png, svg and pdf, with commas between.")]
FORMATS = "png,svg,pdf"
