"""Typer options that choose the text and its tokenisation."""

from pathlib import Path
from typing import Annotated

import typer

CorpusOption = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        metavar="C",
        help=r"python, files:GLOB or hf:NAME\[/CONFIG]\[:SPLIT]\[#COLUMN]. Default: python, or the sweep's.",
    ),
]
CorpusBytesOption = Annotated[
    str | None, typer.Option("--corpus-bytes", metavar="N", help="Largest amount of text to take, e.g. 500MB. Default: 64MB.")
]
TextColumnOption = Annotated[
    str | None, typer.Option("--text-column", metavar="NAME", help="Column of the text in JSON lines, Parquet and hf: data. Default: text.")
]
TokenizerOption = Annotated[
    str | None,
    typer.Option("--tokenizer", metavar="T", help="A tokenizer.json or hf:NAME. Default: a byte-level BPE is trained on the text."),
]
VocabSizeOption = Annotated[int | None, typer.Option("--vocab-size", metavar="N", help="Tokens of that BPE. Default: 8192.")]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Where prepared corpora are kept. Default: $ENGRAMCTL_CACHE or the user's cache folder."),
]
