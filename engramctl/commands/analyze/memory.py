"""`engramctl analyze memory`"""

import functools
from typing import TYPE_CHECKING

from engramctl.commands.analyze.output import Output, begin
from engramctl.commands.analyze.target import load_target
from engramctl.commands.options import analyze as analysis_options
from engramctl.commands.options.corpus import CacheOption
from engramctl.commands.options.results import JsonOption, ResultsOption
from engramctl.commands.options.sweep import DeviceOption
from engramctl.results.defaults import DEFAULT_RESULTS

if TYPE_CHECKING:
    from engram.analysis.slot_use import HeadUse
    from engramctl.results.parquet import Columns


def memory(
    checkpoint: analysis_options.ModelArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    out: analysis_options.OutOption = None,
    formats: analysis_options.FormatOption = analysis_options.FORMATS,
    cache: CacheOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """How the rows of a memory are used: reads, collisions, norms, what each hash head brings alone, and whether the size fits the text.

    Example: engramctl analyze memory laptop/20e7
    """
    formats_wanted = begin(formats)
    from engram.analysis.heads import head_losses
    from engram.analysis.slot_use import slot_use
    from engramctl.findings.memory_size import judge
    from engramctl.present.figures.slots import slots_figure
    from engramctl.present.progress import StageProgress
    from engramctl.present.tables.memory_rows import head_table
    from engramctl.results.rows.analysis import head_columns, row_columns

    target = load_target(checkpoint, results, device)
    target.require_memory()

    @functools.cache
    def use() -> "list[HeadUse]":
        corpus = target.corpus(cache)
        with StageProgress() as progress:
            return slot_use(target.restored, corpus, progress)

    output = Output(target, results, out, formats_wanted, as_json)

    def measure() -> "Columns":
        used, corpus = use(), target.corpus(cache)
        with StageProgress() as progress:
            return head_columns(target.trial, used, head_losses(target.restored, corpus, progress=progress))

    heads = output.keep("memory", measure, "heads", {}, ("engram.analysis.slot_use", "engram.analysis.heads"))
    rows = output.keep("memory_rows", lambda: row_columns(target.trial, use()), "rows", {}, ("engram.analysis.slot_use",))
    output.draw(slots_figure(heads, rows), f"analysis-memory-{target.trial.id}")
    judgement = judge(heads)
    if not as_json:
        first = heads.iloc[0]
        line = f"loss with all heads {first['loss_all']:.3f}, with none {first['loss_none']:.3f} nats per token"
        output.print(head_table(heads), line, judgement.text)
    output.finish({"trial_id": target.trial.id, "verdict": judgement.verdict, "text": judgement.text})
