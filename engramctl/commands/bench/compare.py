"""`engramctl bench compare`"""

from dataclasses import asdict
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


def compare(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    rho: bench_options.RhoOption = bench_options.DEFAULT_RHO,
    optimizer: bench_options.OptimizerOption = DEFAULT_RECIPE.optimizer,
    step_tokens: bench_options.StepTokensOption = None,
    table_rows: Annotated[
        int, typer.Option("--table-rows", metavar="N", min=1000, help="Rows of the table that is held in two ways.")
    ] = 10_000_000,
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
    """Our step beside transformers' DeepSeek-V3, a dense model of equal P_active, and a table with dense gradients.

    Transformers trains at its fastest: all its implementations of experts and types are tried. --optimizer is ours;
    transformers gets PyTorch's fused AdamW.

    Example: engramctl bench compare --optimizer adamw
    """
    check_size(size)
    text = sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    from engram.benchmarks.transformers_model import require_transformers

    require_transformers()
    setup = settled(size, optimizer, text, device, precision, cache, step_tokens)
    from engram.benchmarks.compare import measure_comparison
    from engramctl.present.tables import bench as tables

    with StageProgress() as progress:
        comparison = measure_comparison(setup, rho, table_rows, seconds, rounds, progress)
    if as_json:
        print_json(setting("compare", setup, seconds, rounds, rho) | asdict(comparison))
    else:
        tables.print_comparison(setup, rho, comparison)
