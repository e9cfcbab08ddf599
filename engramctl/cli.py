"""The Typer app, with all commands."""

from typing import Annotated

import typer

from engramctl import __version__
from engramctl.commands.analyze import analyze
from engramctl.commands.bench import bench
from engramctl.commands.compare import compare
from engramctl.commands.corpus import corpus
from engramctl.commands.eval import evaluate
from engramctl.commands.extend import extend
from engramctl.commands.fit import fit
from engramctl.commands.group import CommandGroup
from engramctl.commands.plan import plan
from engramctl.commands.plot import plot
from engramctl.commands.report import report
from engramctl.commands.rm import rm
from engramctl.commands.sample import sample
from engramctl.commands.status import status
from engramctl.commands.sweep import sweep
from engramctl.commands.verify import verify
from engramctl.present import console

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.out().print(f"engramctl {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Scaling-law sweeps over the Engram/MoE split: how much of a sparse model should be experts, how much lookup memory?"""


# The commands import heavy libraries inside their functions, so that `engramctl --help` stays instant.
app.command("corpus")(corpus)
app.command("plan")(plan)
app.command("sweep")(sweep)
app.command("status")(status)
app.command("fit")(fit)
app.command("plot")(plot)
app.command("report")(report)
app.command("compare")(compare)
app.command("eval")(evaluate)
app.command("sample")(sample)
app.command("extend")(extend)
app.command("rm")(rm)
app.command("verify")(verify)
app.add_typer(analyze, name="analyze")
app.add_typer(bench, name="bench")
