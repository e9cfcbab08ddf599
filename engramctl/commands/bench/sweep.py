"""`engramctl bench sweep`"""

from typing import Annotated

import typer

from engram.scaling.recipe import DEFAULT_RECIPE
from engramctl.commands.bench.setup import check_precision, check_size, prepared
from engramctl.commands.options import bench as bench_options
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.commands.options.results import JsonOption
from engramctl.present import console
from engramctl.present.json import print_json


def sweep(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    rho: bench_options.RhoOption = bench_options.DEFAULT_RHO,
    optimizer: bench_options.OptimizerOption = DEFAULT_RECIPE.optimizer,
    trials: Annotated[int, typer.Option("--trials", metavar="N", min=1, help="Trials of equal length: seeds of one model.")] = 8,
    workers: bench_options.WorkersOption = None,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=0.01, help="Training time of each trial, about.")] = 120.0,
    corpus: corpus_options.CorpusOption = None,
    corpus_bytes: corpus_options.CorpusBytesOption = None,
    text_column: corpus_options.TextColumnOption = None,
    tokenizer: corpus_options.TokenizerOption = None,
    vocab_size: bench_options.VocabSizeOption = None,
    device: sweep_options.DeviceOption = "auto",
    precision: bench_options.PrecisionOption = "auto",
    cache: corpus_options.CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Share of the workers' time that a real sweep spends in optimiser steps: start-up, validation, gaps are the rest.

    Runs `engramctl sweep` on this machine in a temporary folder of results. Exit code 1 when a trial of it failed.

    Example: engramctl bench sweep --trials 4 --seconds 30
    """
    check_size(size)
    check_precision(precision)
    from engram.training.machine import resolve_device
    from engramctl.cluster.session import Resources, local_workers
    from engramctl.present.live.watcher import TerminalWatcher
    from engramctl.present.tables import bench as tables
    from engramctl.sweep.bench import bench_spec, measure_sweep

    text = sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    spec = bench_spec(size, rho, trials, {"corpus": text, "train": {"optimizer": {"kind": optimizer}, "precision": precision}})
    resources = Resources(device, min(trials, workers or local_workers(resolve_device(device).type)), None)
    speed = measure_sweep(spec, prepared(spec.corpus, cache), resources, seconds, TerminalWatcher())
    if as_json:
        setting = {"size": size, "rho": rho, "optimizer": optimizer, "corpus": spec.corpus.source, "seconds": seconds}
        print_json({"bench": "sweep", "setting": setting, **tables.sweep_json(speed)})
    else:
        tables.print_sweep(size, rho, optimizer, speed)
    if speed.problems:
        for problem in speed.problems:
            console.note(problem)
        raise typer.Exit(1)
