"""Typer options that the commands of `engramctl bench` share."""

from typing import Annotated

import typer

SizeOption = Annotated[str, typer.Option("--size", metavar="S", help="A size of the ladder, or study: 3 layers of width 96, top-6.")]
OptimizerOption = Annotated[str, typer.Option("--optimizer", metavar="O", help="muon or adamw.")]
RhoOption = Annotated[float, typer.Option("--rho", metavar="R", help="Share of the inactive parameters that goes to experts.")]
RoundsOption = Annotated[
    int, typer.Option("--rounds", metavar="N", min=1, help="Rounds in which the cases take turns; ratios are taken round by round.")
]
SecondsOption = Annotated[float, typer.Option("--seconds", metavar="S", min=0.01, help="Time for each case, all rounds together.")]
VocabSizeOption = Annotated[int | None, typer.Option("--vocab-size", metavar="N", help="Tokens of that BPE. Default: 4096.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, help="Trials at one time; default: one for each core, or each GPU.")
]
StepTokensOption = Annotated[
    int | None,
    typer.Option("--step-tokens", metavar="N", min=1, help="Tokens a step, in sequences of the size's length. Default: the recipe's."),
]
PrecisionOption = Annotated[str, typer.Option("--precision", metavar="P", help="auto, bf16 or fp32.")]

DEFAULT_SIZE = "study"
DEFAULT_RHO = 0.8
DEFAULT_SECONDS = 20.0
DEFAULT_ROUNDS = 5
