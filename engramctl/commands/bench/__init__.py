"""`engramctl bench`: one module per subcommand."""

import typer

from engramctl.commands.bench.compare import compare
from engramctl.commands.bench.eval import evaluation
from engramctl.commands.bench.gpu import gpu
from engramctl.commands.bench.memory import memory
from engramctl.commands.bench.offload import offload
from engramctl.commands.bench.pack import pack
from engramctl.commands.bench.sweep import sweep
from engramctl.commands.bench.train import train
from engramctl.commands.group import CommandGroup

bench = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure how fast training is on this machine, and where time goes.",
)
bench.command("train")(train)
bench.command("memory")(memory)
bench.command("compare")(compare)
bench.command("pack")(pack)
bench.command("sweep")(sweep)
bench.command("eval")(evaluation)
bench.command("offload")(offload)
bench.command("gpu")(gpu)
