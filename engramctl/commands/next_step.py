"""What to type next: the commands that go on with a sweep."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engramctl.results.defaults import as_typed, command

if TYPE_CHECKING:
    from engramctl.findings.fits import SweepFits
    from engramctl.results.manifest import Manifest
    from engramctl.results.sweep_results import SweepResults

_LEFT_OUT = {"results", "as_json"}
"""Options that are no part of what a sweep asks for."""
_SHOWN = 3


def typed_words(context: Any) -> tuple[str, ...]:
    """A running command with the options that were given, in full; `context` is its typer.Context."""
    words, arguments = [str(context.info_name)], []
    for parameter in context.command.params:
        value = context.params.get(parameter.name)
        source = context.get_parameter_source(parameter.name)
        if value is None or source is None or source.name != "COMMANDLINE" or parameter.name in _LEFT_OUT:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(str(value))
        else:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [f"{parameter.opts[0]}={one}"] if str(one).startswith("-") else [parameter.opts[0], str(one)]
    if any(word.startswith("-") for word in arguments):
        return (*words, "--", *arguments)
    return (words[0], *arguments, *words[1:])


def going_on(manifest: "Manifest | None", trials: set[str], sweep: str, results: Path) -> str:
    """The commands that asked for some trials; for sweeps that kept no commands the bare one."""
    found = manifest.commands_for(trials) if manifest else []
    if not found or len(found) > _SHOWN:
        return command("sweep", sweep, results)
    return " and ".join(as_typed(words, results) for words in found)


def seeds_to_settle(opened: "SweepResults", fits: "SweepFits") -> int | None:
    """The --seeds that would settle the verdicts over rho; 0 if they are settled or there are none, None if no number of seeds would do."""
    further = [one.verdict.further_seeds for one in fits.allocation.values()]
    if most := max((n for n in further if n), default=0):
        return int(opened.wanted["seed"].max()) + 1 + most
    return None if None in further else 0
