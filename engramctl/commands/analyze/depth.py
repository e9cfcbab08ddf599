"""`engramctl analyze depth`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engramctl.commands.analyze.output import Output, begin
from engramctl.commands.analyze.target import load_target
from engramctl.commands.options import analyze as analysis_options
from engramctl.commands.options.corpus import CacheOption
from engramctl.commands.options.results import JsonOption, ResultsOption
from engramctl.commands.options.sweep import DeviceOption
from engramctl.results.defaults import DEFAULT_RESULTS

if TYPE_CHECKING:
    from engramctl.results.parquet import Columns


def depth(
    a: Annotated[str, typer.Argument(metavar="A", help=f"{analysis_options.MODEL}; usually experts alone.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other model, usually with memory. Findings are kept with it.")],
    spans: Annotated[
        Path | None,
        typer.Option("--spans", metavar="FILE", help='JSON lines {"text": ..., "spans": [[start, end], ...]}; default: validation text.'),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    out: analysis_options.OutOption = None,
    formats: analysis_options.FormatOption = analysis_options.FORMATS,
    cache: CacheOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Does memory let early layers do what takes experts more of them? LogitLens of both models, and CKA between their layers.

    Both look at the final tokens of the same spans: those of --spans, or names and identifiers in the validation text.

    Example: engramctl analyze depth laptop/4859 laptop/20e7
    """
    formats_wanted = begin(formats)
    from engram.analysis.depth import compare_depth
    from engram.analysis.names import validation_names
    from engram.analysis.spans import read_spans
    from engramctl.present.figures.depth import depth_figure
    from engramctl.present.progress import StageProgress
    from engramctl.present.tables.depth import depth_remarks, depth_tables
    from engramctl.results.rows.analysis import depth_columns

    first, second = load_target(a, results, device), load_target(b, results, device)
    name, where = f"{first.trial.id}.{second.trial.id}", spans.name if spans else "names in the validation text"
    output = Output(second, results, out, formats_wanted, as_json)

    given = read_spans(spans) if spans else None

    def measure() -> "Columns":
        with StageProgress() as progress:
            progress("reading the spans", 0, None)
            texts = validation_names(first.restored, first.corpus(cache)) if given is None else given
            progress("comparing the layers", 0, None)
            return depth_columns(first.trial, second.trial, compare_depth(first.restored, second.restored, texts), where)

    code = ("engram.analysis.depth", "engram.analysis.names", "engram.analysis.spans")
    frame = output.keep("depth", measure, "depth", {"first": first.content, "spans": spans}, code, name)
    output.draw(depth_figure(frame), f"analysis-depth-{name}")
    if not as_json:
        output.print(*depth_tables(frame), *depth_remarks(frame))
    output.finish({"trial_a": first.trial.id, "trial_b": second.trial.id})
