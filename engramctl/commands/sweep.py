"""`engramctl sweep`"""

import time
from typing import TYPE_CHECKING

import typer

from engramctl.commands.interrupts import EXIT_CODE
from engramctl.commands.next_step import typed_words
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options import results as results_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.present import console
from engramctl.results.defaults import DEFAULT_RESULTS, DEFAULT_SWEEP, as_typed, command

if TYPE_CHECKING:
    from engram.config.trial import TrialConfig
    from engramctl.results.store import Store


def sweep(
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
    devices_per_trial: sweep_options.DevicesPerTrialOption = 1,
    tables: sweep_options.TablesOption = "process",
    table_cache: sweep_options.TableCacheOption = sweep_options.DEFAULT_TABLE_CACHE,
    device: sweep_options.DeviceOption = "auto",
    address: sweep_options.AddressOption = None,
    checkpoint_every: sweep_options.CheckpointEveryOption = "1m",
    cache: corpus_options.CacheOption = None,
    as_json: results_options.JsonOption = False,
) -> None:
    """Train every trial of a sweep that is not trained yet. The same command again continues it.

    Example: engramctl sweep --budget 20m
    Example: engramctl sweep allocation --size 3m --budget 1e13,3e13 --rho 0.2,0.4,0.6,0.8,1 --seeds 3
    Example: engramctl sweep --budget 20m --set model.memory.design=value --name value
    Example: engramctl sweep --size 30m --budget 1e15 --tables disk --table-cache 1GB
    Example: engramctl sweep --budget 1e12 --rho 0.5,1 --axis train.learning_rate=0.01,0.02 --name rates
    """
    started = time.monotonic()
    from engram.cache import default_cache
    from engramctl.results.store import Store
    from engramctl.sweep.files import find_sweep, load_sweep
    from engramctl.sweep.units import parse_duration

    checkpoint_s = parse_duration(checkpoint_every)
    placement = sweep_options.table_placement(tables, table_cache, devices_per_trial)
    changes = sweep_options.axis_overrides(budget, rho, size, seeds, slots, axis, variant)
    changes |= sweep_options.field_overrides(fields)
    if text_changes := sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size):
        changes["corpus"] = text_changes
    words = typed_words(context)
    spec = load_sweep(find_sweep(sweep), changes).asked_with(words)
    store = Store(results.absolute(), sweep_options.sweep_name(sweep, name))
    from engramctl.cluster.session import Resources
    from engramctl.present.live.watcher import TerminalWatcher
    from engramctl.sweep.run import SweepRun, run_sweep

    resources = Resources(device, workers, address, devices_per_trial)
    try:
        with store.nothing_left_of_a_refusal():
            store.check_writable()
            trials = run_sweep(SweepRun(store, spec, resources, checkpoint_s, TerminalWatcher(), placement), cache or default_cache())
    except KeyboardInterrupt:
        console.note("stopped; finished trials are kept, the same command continues the others from their last checkpoint")
        raise typer.Exit(EXIT_CODE) from None
    _report(store, trials, started, as_json, words)


def _report(store: "Store", trials: "list[TrialConfig]", started: float, as_json: bool, words: tuple[str, ...] = ("sweep",)) -> None:
    """Say how the sweep ended and what to type next; exit code 1 when any of its trials failed or is missing."""
    from engramctl.present.format import counted, duration, last_line
    from engramctl.present.json import print_json, records
    from engramctl.results.trial_table import FAILED, FINISHED, finished

    table = store.read_trials()
    table = table[table["trial_id"].isin([trial.id for trial in trials])]
    counts = table["status"].value_counts().to_dict()
    missing = len(trials) - len(table)
    if as_json:
        columns = ["trial_id", "size", "budget_flops", "variant", "rho", "seed", "status", "val_loss"]
        print_json({"sweep": store.sweep, "folder": str(store.folder), "trials": records(table[columns]), "missing": missing})
    parts = [f"{count} {status}" for status, count in counts.items()] + ([f"{missing} missing"] if missing else [])
    console.note(f"{store.sweep}: {', '.join(parts)} in {duration(time.monotonic() - started)}; results in {store.folder}")
    for _, row in table.drop(finished(table).index).iterrows():
        console.note(f"  {row['status']}: {row['size']} rho {row['rho']:g} seed {row['seed']}: {last_line(row['error'])}")
    for _, row in table[table["starved_experts"] > 0].iterrows():
        starved = f"{row['starved_experts']:.0f} of {row['n_layers'] * row['n_routed_experts']} experts got no token in the last steps"
        console.note(f"  routing has collapsed: {row['size']} rho {row['rho']:g} seed {row['seed']}: {starved}")
    shown = DEFAULT_RESULTS if store.results == DEFAULT_RESULTS.absolute() else store.results
    if left := counts.get(FAILED, 0) + missing:
        console.note(f"next: {as_typed(words, shown)} trains the {counted(left, 'failed or missing trial')} again")
        raise typer.Exit(1)
    if counts.get(FINISHED):
        console.note(f"next: {command('plot', store.sweep, shown)}")
    else:
        console.note("no trial has a loss: a lower train.learning_rate may help (--set, with another --name)")
