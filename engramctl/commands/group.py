"""Command groups that turn a user's mistake, and what a machine refuses, into one line and exit code 2; a signal into one and 130."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from engram.errors import FieldError, UserError
from engram.files import REFUSALS, refusal
from engramctl.commands.interrupts import EXIT_CODE, interruptible, say_stopped
from engramctl.present import console

_UsageError: Any = typer.BadParameter.__bases__[0]
"""What Typer raises for a command line that it can't read; it exports only this kind of it."""


def _require_folder() -> None:
    """UserError when the current folder was deleted: some libraries end the process there, without a word that helps."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current folder was deleted; change to another one") from None


class CommandGroup(TyperGroup):
    """The class of every group in the program, so that the innermost group, which knows the running command, reports its mistakes."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        code: Any = 0
        with console.safe_streams(), interruptible():
            try:
                try:
                    return super().main(*args, **kwargs)
                finally:
                    sys.stdout.flush()
            except UserError as mistake:  # stdout can't be written
                console.error(str(mistake))
                code = 2
            except KeyboardInterrupt:  # while a command's arguments or its last words were dealt with
                say_stopped()
                code = EXIT_CODE
        sys.exit(code)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        try:
            with _one_line_when_stopped():
                return super().make_context(*args, **kwargs)
        except _UsageError as mistake:
            raise _told(mistake) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            _require_folder()
            with _one_line_when_stopped():
                return super().invoke(ctx)
        except _UsageError as mistake:
            raise _told(mistake) from None
        except FieldError as mistake:
            console.error(f"{self._option(ctx, mistake.field)} {mistake.rest}")
        except UserError as mistake:
            console.error(str(mistake))
            raise typer.Exit(mistake.exit_code) from None
        except OSError as problem:
            if problem.errno not in REFUSALS:
                raise
            console.error(refusal(problem))
        except MemoryError as problem:
            console.error(f"there is not enough memory for this{f': {problem}' if str(problem) else ''}")
        raise typer.Exit(2)

    def _option(self, ctx: Any, field: str) -> str:
        """The option with which the running command sets a field of the library, or the field itself if there is none."""
        option, running = f"--{field.replace('_', '-')}", self.commands.get(ctx.invoked_subcommand)
        return option if running and any(option in parameter.opts for parameter in running.params) else field


def _told(mistake: Any) -> Exception:
    """Print a command line's mistake as one line and return what ends the program; without any arguments the help is the answer."""
    if type(mistake).__name__ == "NoArgsIsHelpError":
        return mistake
    message = str(mistake.format_message()).rstrip(".")
    running = " ".join(["engramctl", *mistake.ctx.command_path.split()[1:]]) if mistake.ctx else "engramctl"
    console.error(f"{message[:1].lower()}{message[1:]}; `{running} --help` lists what there is")
    return typer.Exit(mistake.exit_code)


@contextmanager
def _one_line_when_stopped() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say_stopped()
        raise typer.Exit(EXIT_CODE) from None
