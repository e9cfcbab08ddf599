"""`engramctl bench pack`"""

from typing import Annotated

import typer

from engram.errors import UserError
from engram.scaling.recipe import DEFAULT_RECIPE
from engramctl.commands.bench.setup import check_size, setting, settled
from engramctl.commands.options import bench as bench_options
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.commands.options.parse import whole_numbers
from engramctl.commands.options.results import JsonOption
from engramctl.present.json import print_json
from engramctl.present.progress import StageProgress

_MOST = 256


def pack(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    rho: bench_options.RhoOption = bench_options.DEFAULT_RHO,
    optimizer: bench_options.OptimizerOption = DEFAULT_RECIPE.optimizer,
    step_tokens: bench_options.StepTokensOption = None,
    workers: Annotated[
        list[str] | None, typer.Option("--workers", metavar="N,N", help="Numbers of trials side by side. Default: 1,2,4,8.")
    ] = None,
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
    """Tokens per second of 1, 2, 4, 8 trials side by side on one device, each in a process of its own, as a sweep runs them.

    What `engramctl sweep --workers auto` does on a GPU, as a table. --seconds is the time for each number.

    Example: engramctl bench pack --size 1m --workers 1,2,4,8
    """
    check_size(size)
    counts = whole_numbers("--workers", workers) or [1, 2, 4, 8]
    if not 1 <= min(counts) <= max(counts) <= _MOST:
        raise UserError(f"--workers {','.join(map(str, counts))}: numbers from 1 to {_MOST} are expected")
    text = sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    setup = settled(size, optimizer, text, device, precision, cache, step_tokens)
    from engram.benchmarks.pack import measure_pack
    from engramctl.present.tables import bench as tables

    with StageProgress() as progress:
        trial = setup.trial(setup.sparse(rho), rho)
        found = measure_pack(trial, setup.corpus.folder, device, counts, seconds, rounds, progress)
    if as_json:
        print_json(setting("pack", setup, seconds, rounds, rho) | tables.pack_json(found))
    else:
        tables.print_pack(setup, rho, found)
