"""`engramctl analyze gates`"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engramctl.commands.analyze.output import Output, begin
from engramctl.commands.analyze.target import load_target
from engramctl.commands.options import analyze as analysis_options
from engramctl.commands.options.corpus import CacheOption
from engramctl.commands.options.parse import require_unicode, text_of, whole_numbers
from engramctl.commands.options.results import JsonOption, ResultsOption
from engramctl.commands.options.sweep import DeviceOption
from engramctl.present import console
from engramctl.results.defaults import DEFAULT_RESULTS

_CODE = ("engram.analysis.gates",)

if TYPE_CHECKING:
    from engram.analysis.gates import ValidationGates


def gates(
    checkpoint: analysis_options.ModelArgument,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="Show the gate at each token of a text.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="F", help="The same for the text of a file.", show_default=False)] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", metavar="L", help="Only these layers, counted from 0, e.g. 1,14.", show_default="all")
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    out: analysis_options.OutOption = None,
    formats: analysis_options.FormatOption = analysis_options.FORMATS,
    cache: CacheOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """How far the gates of a memory open: at each token of a text, or over the validation split by group of tokens.

    Without a text it prints the mean gate by how often the N-gram occurs in training, by the longest N-gram that does, by place in a word,
    and the phrases that open the gate most.

    Example: engramctl analyze gates laptop/20e7 "import numpy as np"
    Example: engramctl analyze gates laptop/20e7
    """
    formats_wanted = begin(formats)
    if text is not None and file is not None:
        raise UserError("TEXT and --file are both a text; give one of them")
    layers = whole_numbers("--layer", layer) or None
    content = text_of("--file", file) if file is not None else text
    output = Output(load_target(checkpoint, results, device), results, out, formats_wanted, as_json)
    if content is not None:
        _of_text(output, content, layers)
    else:
        _of_validation(output, layers, cache)


def _of_text(output: Output, text: str, layers: Sequence[int] | None) -> None:
    from engram.analysis.gates import text_gates
    from engramctl.present.figures.gate_text import gate_text_figure
    from engramctl.present.tables.gates import coloured_texts, number_lines
    from engramctl.results.rows.analysis import text_columns

    require_unicode("TEXT", text)
    target = output.target
    asked = {"text": text, "layers": layers}
    frame = output.keep("gate_text", lambda: text_columns(target.trial, text_gates(target.restored, text, layers)), "tokens", asked, _CODE)
    output.draw(gate_text_figure(frame), f"analysis-gate-text-{target.trial.id}")
    if not output.as_json:
        terminal = console.out()
        if terminal.is_terminal:
            for coloured in coloured_texts(frame):
                terminal.print(coloured, soft_wrap=True)
        else:
            for line in number_lines(frame):
                typer.echo(line)
    output.finish({"trial_id": target.trial.id})


def _of_validation(output: Output, layers: Sequence[int] | None, cache: Path | None) -> None:
    from engram.analysis.gates import validation_gates
    from engramctl.present.figures.gates import gates_figure
    from engramctl.present.progress import StageProgress
    from engramctl.present.tables.gates import group_table, phrase_note, phrase_table
    from engramctl.results.rows.analysis import gate_columns, phrase_columns

    target = output.target
    target.require_memory(layers)

    @functools.cache
    def found() -> "ValidationGates":
        corpus = target.corpus(cache)
        with StageProgress() as progress:
            progress("reading the validation split", 0, None)
            return validation_gates(target.restored, corpus, layers)

    groups = output.keep("gates", lambda: gate_columns(target.trial, found()), "groups", {"layers": layers}, _CODE)
    phrases = output.keep("gate_phrases", lambda: phrase_columns(target.trial, found()), "phrases", {"layers": layers}, _CODE)
    output.draw(gates_figure(groups, phrases), f"analysis-gates-{target.trial.id}")
    if not output.as_json:
        output.print(group_table(groups), phrase_table(phrases))
        output.print(phrase_note(phrases))
    output.finish({"trial_id": target.trial.id})
