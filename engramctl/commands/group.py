"""Command groups that turn a user's mistake, and what a machine refuses, into one line and exit code 2."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from engram.errors import FieldError, UserError
from engram.files import REFUSALS, refusal
from engramctl.present import console


class CommandGroup(TyperGroup):
    """The class of every group in the program, so that the innermost group, which knows the running command, reports its mistakes."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        code: Any = 0
        with console.safe_streams():
            try:
                try:
                    return super().main(*args, **kwargs)
                finally:
                    sys.stdout.flush()
            except UserError as mistake:  # stdout can't be written
                console.error(str(mistake))
                code = 2
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FieldError as mistake:
            console.error(f"{self._option(ctx, mistake.field)} {mistake.rest}")
        except UserError as mistake:
            console.error(str(mistake))
            raise typer.Exit(mistake.exit_code) from None
        except OSError as problem:
            if problem.errno not in REFUSALS:
                raise
            console.error(refusal(problem))
        raise typer.Exit(2)

    def _option(self, ctx: Any, field: str) -> str:
        """The option with which the running command sets a field of the library, or the field itself if there is none."""
        option, running = f"--{field.replace('_', '-')}", self.commands.get(ctx.invoked_subcommand)
        return option if running and any(option in parameter.opts for parameter in running.params) else field
