"""What to type next: the commands that go on with a sweep."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engramctl.present.format import counted, duration, series_name
from engramctl.results.defaults import as_typed, command

if TYPE_CHECKING:
    from engramctl.findings.advice import Advice
    from engramctl.findings.fits import SweepFits
    from engramctl.results.manifest import Manifest
    from engramctl.results.sweep_results import SweepResults

_LEFT_OUT = {"results", "as_json", "refresh"}
"""Options that are no part of what a sweep asks for."""
_RHOS = (0.25, 0.5, 0.75, 1.0)
"""Values of rho that a minimum can be seen with."""


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


def going_on(manifest: "Manifest | None", trials: set[str], sweep: str, results: Path, **changed: str) -> str:
    """The commands that asked for some trials, each with some options changed; in words for sweeps that kept no commands.

    Args:
        manifest: the sweep's.
        trials: ids.
        sweep: its name.
        results: the results folder.
        changed: new values by option, without its dashes.
    """
    options = [f"--{name} {value}" for name, value in changed.items()]
    found = manifest.commands_for(trials) if manifest else []
    if found:
        return " and ".join(dict.fromkeys(as_typed(_with(words, changed), results) for words in found))
    if not options:
        return command("sweep", sweep, results)
    return f"the same `engramctl sweep` command with {' '.join(options)}"


def _with(words: Sequence[str], changed: Mapping[str, str]) -> tuple[str, ...]:
    """The words of a command with some options changed."""
    kept, rest = (words[: words.index("--")], words[words.index("--") :]) if "--" in words else (words, ())
    options = {f"--{name}": value for name, value in changed.items()}
    left = []
    skip = False
    for word in kept:
        skip, taken = word in options, skip or word.partition("=")[0] in options
        if not taken:
            left.append(word)
    return (*left, *(part for pair in options.items() for part in pair), *rest)


def further(opened: "SweepResults", fits: "SweepFits") -> str:
    """What to run next when all trials are done: the seeds or the values of rho that are missing, or the report if nothing is."""
    from engramctl.findings.advice import advice

    ids = set(opened.wanted["trial_id"])

    def again(**changed: str) -> str:
        return going_on(opened.manifest, ids, opened.name, opened.store.results, **changed)

    if open_series := advice(opened.wanted, fits.allocation):
        return settling(opened, open_series)
    few = not opened.manifest.sweep.axes  # the variants of an axis may have values of rho of their own
    if few and any(one.verdict.kind == "too-few-points" for one in fits.allocation.values()):
        rhos = sorted({*map(float, opened.wanted["rho"]), *_RHOS})
        return f"{again(rho=','.join(f'{rho:g}' for rho in rhos))} adds the values of rho that a minimum needs"
    if any(one.verdict.further_seeds is None for one in fits.allocation.values()):
        report = command("report", opened.name, opened.store.results)
        return f"{report} puts it on a page; further seeds would not settle it"
    return f"{again(seeds=str(int(opened.trials['seed'].max()) + 2))} adds a seed"


def settling(opened: "SweepResults", open_series: "Sequence[Advice]") -> str:
    """The command that would settle the series for which that is cheapest, and how many others are open."""
    from engramctl.results.trial_table import of_series

    first = open_series[0]
    size, budget, variant = first.series
    changed = {"size": size, "budget": _exact(budget), "rho": ",".join(map(_exact, first.rhos)), "seeds": str(first.seeds)}
    if variant:
        changed["variant"] = variant
    ids = set(of_series(opened.wanted, first.series)["trial_id"])
    again = going_on(opened.manifest, ids, opened.name, opened.store.results, **changed)
    cost = counted(first.trials, "trial") + ("" if math.isnan(first.seconds) else f", {duration(first.seconds)} of training on one core")
    others = f"; {len(open_series) - 1} more are open" if len(open_series) > 1 else ""
    return f"{again} adds the seeds that would settle {series_name(*first.series)} ({cost}){others}"


def _exact(value: float) -> str:
    """A number as short as it can be without becoming another one."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
