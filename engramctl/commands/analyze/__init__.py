"""`engramctl analyze`: one module per subcommand."""

import typer

from engramctl.commands.analyze.depth import depth
from engramctl.commands.analyze.gates import gates
from engramctl.commands.analyze.memory import memory
from engramctl.commands.analyze.suppress import suppress
from engramctl.commands.group import CommandGroup

analyze = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look into trained models: effective depth, what the memory's gates let in, what is in it, how its rows are used.",
)
analyze.command("depth")(depth)
analyze.command("gates")(gates)
analyze.command("suppress")(suppress)
analyze.command("memory")(memory)
