"""`engramctl bench train`"""

from typing import Annotated

import typer

from engram.scaling.recipe import DEFAULT_RECIPE
from engramctl.commands.bench.setup import check_size, setting, settled
from engramctl.commands.options import bench as bench_options
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.commands.options.results import JsonOption
from engramctl.present.json import print_json
from engramctl.present.progress import StageProgress


def train(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    rho: bench_options.RhoOption = bench_options.DEFAULT_RHO,
    optimizer: bench_options.OptimizerOption = DEFAULT_RECIPE.optimizer,
    step_tokens: bench_options.StepTokensOption = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Then train N copies side by side, each in a process of its own.")
    ] = 1,
    seconds: bench_options.SecondsOption = bench_options.DEFAULT_SECONDS,
    rounds: bench_options.RoundsOption = bench_options.DEFAULT_ROUNDS,
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
    """Tokens per second of whole steps, the share of each part, and the matrix products of a step alone.

    Parts and products are run alone, a tenth of --seconds each.

    Example: engramctl bench train --rho 0.8 --workers 2
    """
    check_size(size)
    text = sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    setup = settled(size, optimizer, text, device, precision, cache, step_tokens)
    from engram.benchmarks.train import measure_training
    from engram.benchmarks.workers import train_side_by_side
    from engramctl.present.tables import bench as tables

    with StageProgress() as progress:
        speed = measure_training(setup, rho, seconds, rounds, progress)
        side = None
        if workers > 1:
            progress(f"training {workers} copies side by side", 0, None)
            side = train_side_by_side(setup, speed.model, rho, workers, seconds, rounds)
    if as_json:
        print_json(setting("train", setup, seconds, rounds, rho) | tables.train_json(speed, side))
    else:
        tables.print_train(setup, rho, speed, side)
