"""`engramctl analyze depth | gates | suppress | memory`"""

from pathlib import Path
from typing import Annotated

import typer

from engram.errors import UserError
from engramctl import console
from engramctl.analysis import options as analysis_options
from engramctl.analysis import output
from engramctl.commands.analyze_gates import gates
from engramctl.options import CacheOption
from engramctl.results_options import DEFAULT_RESULTS, JsonOption, ResultsOption
from engramctl.sweep_options import DeviceOption, items

analyze = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look into trained models: effective depth, what the memory's gates let in, what is in it, how its rows are used.",
)


@analyze.command("depth")
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
    formats_wanted = output.begin(formats)
    from engram.analysis.depth import compare_depth
    from engram.analysis.names import validation_names
    from engram.analysis.spans import read_spans
    from engramctl.analysis.depth import depth_columns, depth_remarks, depth_tables
    from engramctl.analysis.target import corpus_of
    from engramctl.figures.depth import depth_figure

    first, second = output.load(a, results, device), output.load(b, results, device)
    texts = read_spans(spans) if spans else validation_names(first.restored, corpus_of(first.restored, cache))
    found = compare_depth(first.restored, second.restored, texts)
    name, where = f"{first.trial.id}.{second.trial.id}", spans.name if spans else "names in the validation text"
    kept = [second.store.write(name, "depth", depth_columns(first, second, found, where))]
    frame = second.store.read(name, "depth")
    drawn = output.draw(depth_figure(frame), out or second.store.figures, f"analysis-depth-{name}", formats_wanted)
    if as_json:
        output.print_json({"trial_a": first.trial.id, "trial_b": second.trial.id}, kept, drawn, {"depth": frame})
    else:
        terminal = console.out()
        for table in depth_tables(frame):
            terminal.print(table)
            terminal.print()
        output.print_lines(depth_remarks(frame))
    output.say(kept, drawn, second, results)


analyze.command("gates")(gates)


@analyze.command("suppress")
def suppress(
    checkpoint: analysis_options.ModelArgument,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="T", help="Benchmarks too, as `engramctl eval` names them, e.g. mmlu,bbh.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder with the tasks' data; what is not there comes from the hub.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Most items of each task.", show_default="all")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
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
    formats_wanted = output.begin(formats)
    if not items(tasks) and (data or limit or offline or max_length):
        raise UserError("--data, --limit, --offline and --max-length are of --tasks, which names none")
    from engramctl.evals.requests import Settings, requests_for

    if items(tasks):
        from engram.evaluation.environment import require_lm_eval

        require_lm_eval()
    if data is not None and not data.exists():
        raise UserError(f"--data {data} does not exist")
    requests = requests_for(items(tasks), None, Settings(limit, None, max_length, data.absolute() if data else None, offline))
    from engram.analysis.suppression import suppressed_losses
    from engramctl.analysis.suppression import suppression_columns, suppression_table
    from engramctl.analysis.target import corpus_of, require_memory
    from engramctl.figures.suppression import suppressed_tasks_figure, suppression_figure

    target = output.load(checkpoint, results, device)
    require_memory(target, None)
    store, name = target.store, target.trial.id
    found = suppressed_losses(target.restored, corpus_of(target.restored, cache))
    kept = [store.write(name, "suppress", suppression_columns(target, found))]
    losses = store.read(name, "suppress")
    drawn = output.draw(suppression_figure(losses), out or store.figures, f"analysis-suppress-{name}", formats_wanted)
    if not as_json:
        console.out().print(suppression_table(losses))
    shown = {"losses": losses}
    if requests:
        from engram.evaluation.adapter import EngramLM
        from engramctl.analysis.tasks import at_chance, task_columns, task_table

        lm = EngramLM.from_restored(target.restored, max_length)
        kept.append(store.write(name, "suppress_tasks", task_columns(target, requests, lm)))
        scores = shown["tasks"] = store.read(name, "suppress_tasks")
        drawn += output.draw(suppressed_tasks_figure(scores), out or store.figures, f"analysis-suppress-tasks-{name}", formats_wanted)
        if not as_json:
            console.out().print()
            console.out().print(task_table(scores))
            if near := at_chance(scores):
                output.print_lines([f"no better than a guess with the memory on, so that what is retained says nothing: {', '.join(near)}"])
    if as_json:
        output.print_json({"trial_id": name}, kept, drawn, shown)
    output.say(kept, drawn, target, results)


@analyze.command("memory")
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
    formats_wanted = output.begin(formats)
    from engram.analysis.heads import head_losses
    from engram.analysis.slot_use import slot_use
    from engramctl.analysis.judgement import judge
    from engramctl.analysis.memory import head_columns, head_table, row_columns
    from engramctl.analysis.target import corpus_of, require_memory
    from engramctl.figures.slots import slots_figure

    target = output.load(checkpoint, results, device)
    require_memory(target, None)
    corpus = corpus_of(target.restored, cache)
    store, name = target.store, target.trial.id
    use = slot_use(target.restored, corpus)
    losses = head_losses(target.restored, corpus)
    kept = [store.write(name, "memory", head_columns(target, use, losses)), store.write(name, "memory_rows", row_columns(target, use))]
    heads, rows = store.read(name, "memory"), store.read(name, "memory_rows")
    drawn = output.draw(slots_figure(heads, rows), out or store.figures, f"analysis-memory-{name}", formats_wanted)
    judgement = judge(heads)
    if as_json:
        known = {"trial_id": name, "verdict": judgement.verdict, "text": judgement.text}
        output.print_json(known, kept, drawn, {"heads": heads, "rows": rows})
    else:
        first = heads.iloc[0]
        terminal = console.out()
        terminal.print(head_table(heads))
        terminal.print()
        output.print_lines(
            [
                f"loss with all heads {first['loss_all']:.3f}, with none {first['loss_none']:.3f} nats per token",
                judgement.text,
            ]
        )
    output.say(kept, drawn, target, results)
