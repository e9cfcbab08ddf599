"""`engramctl analyze gates`"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engramctl import console
from engramctl.analysis import options as analysis_options
from engramctl.analysis import output
from engramctl.options import CacheOption
from engramctl.results_options import DEFAULT_RESULTS, JsonOption, ResultsOption
from engramctl.sweep_options import DeviceOption, items

if TYPE_CHECKING:
    from engramctl.analysis.target import Target


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
    formats_wanted = output.begin(formats)
    if text is not None and file is not None:
        raise UserError("TEXT and --file are both a text; give one of them")
    layers = [_whole("--layer", one) for one in items(layer)] or None
    content = _file_text(file) if file is not None else text
    target = output.load(checkpoint, results, device)
    if content is not None:
        _gates_of_text(target, content, layers, out, formats_wanted, results, as_json)
    else:
        _gates_of_validation(target, layers, cache, out, formats_wanted, results, as_json)


def _gates_of_text(
    target: "Target", text: str, layers: list[int] | None, out: Path | None, formats: Sequence[str], results: Path, as_json: bool
) -> None:
    from engram.analysis.gates import text_gates
    from engramctl.analysis.gates import coloured_texts, number_lines, text_columns
    from engramctl.figures.gate_text import gate_text_figure

    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"TEXT {text!a} is not UTF-8") from None
    name = target.trial.id
    kept = [target.store.write(name, "gate_text", text_columns(target, text_gates(target.restored, text, layers)))]
    frame = target.store.read(name, "gate_text")
    drawn = output.draw(gate_text_figure(frame), out or target.store.figures, f"analysis-gate-text-{name}", formats)
    if as_json:
        output.print_json({"trial_id": name}, kept, drawn, {"tokens": frame})
    else:
        terminal = console.out()
        if terminal.is_terminal:
            for coloured in coloured_texts(frame):
                terminal.print(coloured, soft_wrap=True)
        else:
            for line in number_lines(frame):
                typer.echo(line)
    output.say(kept, drawn, target, results)


def _gates_of_validation(
    target: "Target", layers: list[int] | None, cache: Path | None, out: Path | None, formats: Sequence[str], results: Path, as_json: bool
) -> None:
    from engram.analysis.gates import validation_gates
    from engramctl.analysis.gates import gate_columns, group_table, phrase_columns, phrase_note, phrase_table
    from engramctl.analysis.target import corpus_of, require_memory
    from engramctl.figures.gates import gates_figure

    require_memory(target, layers)
    found = validation_gates(target.restored, corpus_of(target.restored, cache), layers)
    store, name = target.store, target.trial.id
    kept = [store.write(name, "gates", gate_columns(target, found)), store.write(name, "gate_phrases", phrase_columns(target, found))]
    groups, phrases = store.read(name, "gates"), store.read(name, "gate_phrases")
    drawn = output.draw(gates_figure(groups, phrases), out or store.figures, f"analysis-gates-{name}", formats)
    if as_json:
        output.print_json({"trial_id": name}, kept, drawn, {"groups": groups, "phrases": phrases})
    else:
        terminal = console.out()
        terminal.print(group_table(groups))
        terminal.print()
        terminal.print(phrase_table(phrases))
        output.print_lines([phrase_note(phrases)])
    output.say(kept, drawn, target, results)


def _whole(option: str, text: str) -> int:
    if not text.isdigit():
        raise UserError(f"{option}: {text} is not a whole number; numbers are separated by commas")
    return int(text)


def _file_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as problem:
        raise UserError(f"--file {file} can't be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--file {file} is not UTF-8 text") from None
