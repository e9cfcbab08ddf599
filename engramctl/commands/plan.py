"""`engramctl plan`"""

import typer

from engram.errors import UserError
from engramctl.commands.next_step import typed_words
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options import results as results_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.commands.options.parse import items
from engramctl.present import console
from engramctl.present.json import print_json
from engramctl.results.defaults import DEFAULT_RESULTS, DEFAULT_SWEEP, as_typed, command


def plan(
    context: typer.Context,
    sweep: sweep_options.SweepNameArgument = DEFAULT_SWEEP,
    budget: sweep_options.BudgetOption = None,
    rho: sweep_options.RhoOption = None,
    size: sweep_options.SizeOption = None,
    seeds: sweep_options.SeedsOption = None,
    slots: sweep_options.SlotsOption = None,
    axis: sweep_options.AxisOption = None,
    variant: sweep_options.VariantOption = None,
    corpus: corpus_options.CorpusOption = None,
    corpus_bytes: corpus_options.CorpusBytesOption = None,
    text_column: corpus_options.TextColumnOption = None,
    tokenizer: corpus_options.TokenizerOption = None,
    vocab_size: corpus_options.VocabSizeOption = None,
    fields: sweep_options.SetOption = None,
    results: results_options.ResultsOption = DEFAULT_RESULTS,
    name: sweep_options.NameOption = None,
    workers: sweep_options.WorkersOption = None,
    device: sweep_options.DeviceOption = "auto",
    as_json: results_options.JsonOption = False,
) -> None:
    """Show what a sweep would train: experts, slots, parameters, tokens, FLOPs, time and memory. Nothing is spent.

    Takes the arguments of `engramctl sweep`. Sizes: 1m 3m 10m 30m 100m 300m 1b 3b 6b. The paper's own models are counted
    by group: dense-4b moe-27b engram-27b engram-40b.

    Example: engramctl plan --size 3m --budget 1e13 --rho 0,0.5,0.75,1
    Example: engramctl plan --size engram-27b
    """
    from engram.scaling.presets import PRESETS

    sizes = items(size)
    if presets := [name for name in sizes if name in PRESETS]:
        given: dict[str, object] = {
            "--budget": budget,
            "--rho": rho,
            "--seeds": seeds,
            "--slots": slots,
            "--axis": axis,
            "--variant": variant,
        }
        given |= {"--set": fields, "other sizes": sizes != presets}
        others = [name for name, value in given.items() if value]
        if others:
            raise UserError(f"{presets[0]} is a model of the paper, counted as it stands; it can't be combined with {', '.join(others)}")
        _print_presets(presets, as_json)
        return
    from engramctl.present.tables.plan import plan_tables
    from engramctl.results.store import Store
    from engramctl.sweep.files import find_sweep, load_sweep
    from engramctl.sweep.plan import plan_sweep

    changes = sweep_options.axis_overrides(budget, rho, size, seeds, slots, axis, variant)
    changes |= sweep_options.field_overrides(fields)
    if text_changes := sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size):
        changes["corpus"] = text_changes
    spec = load_sweep(find_sweep(sweep), changes)
    store = Store(results, sweep_options.sweep_name(sweep, name))
    planned = plan_sweep(spec, store, workers, device)
    if as_json:
        print_json({"sweep": store.sweep, "question": spec.question, **planned.as_json()})
        return
    out = console.out()
    for table in plan_tables(planned):
        out.print(table)
        out.print()
    for line in planned.notes:
        console.note(line)
    if planned.n_left:
        console.note(f"next: {as_typed(('sweep', *typed_words(context)[1:]), results)} trains {'it' if planned.n_left == 1 else 'them'}")
    else:
        console.note(f"next: {command('plot', store.sweep, results)}")


def _print_presets(names: list[str], as_json: bool) -> None:
    from engramctl.present.tables.presets import preset_row, preset_table

    rows = [preset_row(name) for name in names]
    if as_json:
        print_json(rows[0] if len(rows) == 1 else {"models": rows})
    else:
        console.out().print(preset_table(names))
