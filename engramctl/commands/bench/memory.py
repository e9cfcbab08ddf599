"""`engramctl bench memory`"""

from dataclasses import asdict

from engram.scaling.recipe import DEFAULT_RECIPE
from engramctl.commands.bench.setup import check_size, setting, settled
from engramctl.commands.options import bench as bench_options
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.commands.options.results import JsonOption
from engramctl.present import console
from engramctl.present.json import print_json
from engramctl.present.progress import StageProgress


def memory(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    optimizer: bench_options.OptimizerOption = DEFAULT_RECIPE.optimizer,
    step_tokens: bench_options.StepTokensOption = None,
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
    """Step time at rho 0.75 and 0.25 against rho 1, and with tables 16 and 256 times longer; rows touched in a step.

    Example: engramctl bench memory --seconds 30
    """
    check_size(size)
    text = sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    setup = settled(size, optimizer, text, device, precision, cache, step_tokens)
    from engram.benchmarks.memory import measure_memory
    from engramctl.present.tables import bench as tables

    with StageProgress() as progress:
        speed = measure_memory(setup, seconds, rounds, progress)
    for name, reason in speed.left_out.items():
        console.note(f"{name} is left out: {reason}")
    if as_json:
        print_json(setting("memory", setup, seconds, rounds) | asdict(speed))
    else:
        tables.print_memory(setup, speed)
