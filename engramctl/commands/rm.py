"""`engramctl rm SWEEP [TRIAL ...]`"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engramctl.commands.options.results import JsonOption, ResultsOption, SweepArgument
from engramctl.present import console
from engramctl.present.format import counted, human
from engramctl.present.json import print_json
from engramctl.results.defaults import DEFAULT_RESULTS

if TYPE_CHECKING:
    from engramctl.results.remove import Removal

_SHOWN = 10


def rm(
    sweep: SweepArgument,
    trials: Annotated[
        list[str] | None, typer.Argument(metavar="TRIAL", help="Ids of trials, or beginnings of ids. Without them: the whole sweep.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Remove a sweep with all its results, or some of its trials: rows, curves, documents and checkpoints.

    Says what would go and asks. A sweep that is being run is left alone.

    A removed trial is trained again by the same `engramctl sweep` command, if that still asks for it.

    Example: engramctl rm allocation 0123456789ab
    Example: engramctl rm old-sweep --yes
    """
    from engramctl.results.remove import remove_sweep, remove_trials, sweep_removal, trials_removal
    from engramctl.results.store import Store
    from engramctl.results.trial_ids import find_trial

    store = Store.open_existing(results, sweep)
    with store.lock():
        if trials:
            known = store.known_trials()
            ids = list(dict.fromkeys(find_trial(typed, known, sweep) for typed in trials))
            removal = trials_removal(store, ids)
        else:
            removal = sweep_removal(store)
        what = f"{_trials(removal.trials)} of {store.folder}" if trials else str(store.folder)
        _confirm(f"{what}: {_description(removal)}", yes)
        if trials:
            remove_trials(store, removal.trials)
        else:
            remove_sweep(store)
    if as_json:
        print_json({"sweep": sweep, "trials": removal.trials, "n_bytes": removal.n_bytes, "whole_sweep": not trials})
    console.note(f"removed {human(removal.n_bytes)}B")


def _trials(ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"trial{'' if len(ids) == 1 else 's'} {', '.join(ids[:_SHOWN])}{more}"


def _description(removal: "Removal") -> str:
    parts = [f"{n} {status}" for status, n in removal.statuses.items()] or ["no trial"]
    return f"{', '.join(parts)}; {counted(removal.n_checkpoints, 'checkpoint')}; {human(removal.n_bytes)}B"


def _confirm(what: str, yes: bool) -> None:
    """Say what would go and ask, unless --yes was given; UserError when there is nobody to ask, exit code 1 for a no."""
    if not yes and not _interactive():
        raise UserError(f"rm would remove {what}; there is no terminal to ask on: --yes does it")
    console.note(f"rm removes {what}")
    if not yes and not typer.confirm("Remove for good?", default=False, err=True):
        console.note("nothing was removed")
        raise typer.Exit(1)


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()  # None where the shell has closed it
