"""Command groups that turn a user's mistake, and what a machine refuses, into one line and exit code 2; a signal into one and 130."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from engram.errors import FieldError, UserError
from engramctl.commands.interrupts import EXIT_CODE, interruptible, say_stopped
from engramctl.present import console

_REFUSALS = {
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE),
}
"""What a disk or a machine says that nobody foresees at every place; other OSErrors are bugs."""


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
        with _one_line_when_stopped():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _one_line_when_stopped():
                return super().invoke(ctx)
        except FieldError as mistake:
            console.error(f"{self._option(ctx, mistake.field)} {mistake.rest}")
        except UserError as mistake:
            console.error(str(mistake))
            raise typer.Exit(mistake.exit_code) from None
        except OSError as problem:
            if problem.errno not in _REFUSALS:
                raise
            named = [str(name) for name in (problem.filename, problem.filename2) if name is not None]
            console.error(": ".join([*named[-1:], problem.strerror or str(problem)]))
        raise typer.Exit(2)

    def _option(self, ctx: Any, field: str) -> str:
        """The option with which the running command sets a field of the library, or the field itself if there is none."""
        option, running = f"--{field.replace('_', '-')}", self.commands.get(ctx.invoked_subcommand)
        return option if running and any(option in parameter.opts for parameter in running.params) else field


@contextmanager
def _one_line_when_stopped() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say_stopped()
        raise typer.Exit(EXIT_CODE) from None
