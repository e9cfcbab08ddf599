"""`engramctl analyze suppress`"""

from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engramctl.commands.analyze.output import Output, begin
from engramctl.commands.analyze.target import load_target
from engramctl.commands.options import analyze as analysis_options
from engramctl.commands.options.corpus import CacheOption
from engramctl.commands.options.models import DataOption, LimitOption, OfflineOption
from engramctl.commands.options.parse import existing, items
from engramctl.commands.options.results import JsonOption, ResultsOption
from engramctl.commands.options.sweep import DeviceOption
from engramctl.present import console
from engramctl.results.defaults import DEFAULT_RESULTS

if TYPE_CHECKING:
    from engramctl.results.parquet import Columns


def suppress(
    checkpoint: analysis_options.ModelArgument,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="T", help="Benchmarks too, as `engramctl eval` names them, e.g. mmlu,bbh.")
    ] = None,
    data: DataOption = None,
    limit: LimitOption = None,
    offline: OfflineOption = False,
    max_length: Annotated[
        int | None, typer.Option("--max-length", metavar="N", min=16, help="Most tokens read at a time.", show_default="as in training")
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    out: analysis_options.OutOption = None,
    formats: analysis_options.FormatOption = analysis_options.FORMATS,
    cache: CacheOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """What of a model's knowledge is in its memory: validation loss, and benchmark scores, with the memory on and off.

    The paper's protocol: the output of every memory is set to zero, the backbone is as it was trained. Retained is the score off / on, of
    a loss exp(on - off).

    The backbone never learned to do without: this is what the trained model relies on, not what a model without memory would reach. Compare
    kinds of tokens and tasks with each other.

    Example: engramctl analyze suppress laptop/20e7
    Example: engramctl analyze suppress laptop/20e7 --tasks mmlu,bbh --data benchmarks/ --offline --limit 100
    """
    formats_wanted, names = begin(formats), items(tasks)
    if not names and (data or limit or offline or max_length):
        raise UserError("--data, --limit, --offline and --max-length are of --tasks, which names none")
    from engramctl.results.score_requests import SCORING_CODE, Settings, requests_for

    if names:
        from engram.evaluation.environment import require_lm_eval

        require_lm_eval()
    settings = Settings(limit=limit, max_length=max_length, data=existing("--data", data), offline=offline)
    requests = requests_for(names, None, settings)
    from engram.analysis.suppression import suppressed_losses
    from engramctl.present.figures.suppression import suppressed_tasks_figure, suppression_figure
    from engramctl.present.progress import StageProgress
    from engramctl.present.tables.suppression import suppression_table
    from engramctl.results.rows.analysis import suppression_columns

    target = load_target(checkpoint, results, device)
    target.require_memory()
    output, name = Output(target, results, out, formats_wanted, as_json), target.trial.id

    def measure() -> "Columns":
        corpus = target.corpus(cache)
        with StageProgress() as progress:
            return suppression_columns(target.trial, suppressed_losses(target.restored, corpus, progress=progress))

    losses = output.keep("suppress", measure, "losses", {}, ("engram.analysis.suppression",))
    output.draw(suppression_figure(losses), f"analysis-suppress-{name}")
    if not as_json:
        output.print(suppression_table(losses))
    if requests:
        from engram.evaluation.adapter import EngramLM
        from engramctl.findings.suppressed_tasks import at_chance, task_columns
        from engramctl.present.tables.suppressed_tasks import task_table

        lm = EngramLM.from_restored(target.restored, max_length)
        asked = {"requests": [request.identity(lm.max_length) for request in requests]}
        code = (*SCORING_CODE, "engram.analysis.suppression", "engramctl.findings.suppressed_tasks")
        scores = output.keep("suppress_tasks", lambda: task_columns(target.trial, requests, lm, console.note), "tasks", asked, code)
        output.draw(suppressed_tasks_figure(scores), f"analysis-suppress-tasks-{name}")
        if not as_json:
            console.out().print()
            output.print(task_table(scores))
            if near := at_chance(scores):
                output.print(f"no better than a guess with the memory on, so that what is retained says nothing: {', '.join(near)}")
    output.finish({"trial_id": name})
