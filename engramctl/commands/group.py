"""Command groups that turn a user's mistake into one line and exit code 2."""

from typing import Any

import typer
from typer.core import TyperGroup

from engram.errors import FieldError, UserError
from engramctl.present import console


class CommandGroup(TyperGroup):
    """The class of every group in the program, so that the innermost group, which knows the running command, reports its mistakes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FieldError as mistake:
            console.error(f"{self._option(ctx, mistake.field)} {mistake.rest}")
        except UserError as mistake:
            console.error(str(mistake))
            raise typer.Exit(mistake.exit_code) from None
        raise typer.Exit(2)

    def _option(self, ctx: Any, field: str) -> str:
        """The option with which the running command sets a field of the library, or the field itself if there is none."""
        option, running = f"--{field.replace('_', '-')}", self.commands.get(ctx.invoked_subcommand)
        return option if running and any(option in parameter.opts for parameter in running.params) else field
