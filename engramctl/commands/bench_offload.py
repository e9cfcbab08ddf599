"""`engramctl bench offload`"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.errors import UserError
from engram.recipe import DEFAULT_OPTIMIZER
from engramctl import bench_options, console, sweep_options
from engramctl import options as corpus_options
from engramctl.results_options import DEFAULT_SWEEP, JsonOption

if TYPE_CHECKING:
    from engram.benchmarks.offload_serving import ServingSpeed
    from engram.benchmarks.offload_training import TrainingSpeed
    from engram.corpus.dataset import Corpus

_WHAT = ("both", "inference", "training")
_SEQ_LEN, _BATCH = 256, 8


def offload(
    what: Annotated[str, typer.Option("--what", metavar="W", help="inference, training or both.")] = "both",
    table: Annotated[
        str, typer.Option("--table", metavar="BYTES", help="Size of the table: rows as stored; in training with the optimiser's state.")
    ] = "1GB",
    table_cache: Annotated[
        list[str] | None, typer.Option("--table-cache", metavar="BYTES", help="RAM for hot rows in inference, e.g. 64MiB,256MiB.")
    ] = None,
    cache_share: Annotated[
        float, typer.Option("--cache-share", metavar="F", min=0.0, max=1.0, help="Share of the table in RAM in training.")
    ] = 0.01,
    rows: Annotated[list[str] | None, typer.Option("--rows", metavar="N", help="Also tables of so many rows, e.g. 1e6,1e7,1e8.")] = None,
    row_format: Annotated[str, typer.Option("--row-format", metavar="F", help="Of rows in inference: fp32, bf16, int8 or fp8.")] = "int8",
    sequences: Annotated[int, typer.Option("--sequences", metavar="N", min=1, help="Sequences of inference, 100 to 1024 tokens.")] = 512,
    width: Annotated[int, typer.Option("--width", metavar="D", min=64, help="Of the dense model in inference.")] = 768,
    layers: Annotated[int, typer.Option("--layers", metavar="N", min=2, help="Of the same.")] = 14,
    train_width: Annotated[int, typer.Option("--train-width", metavar="D", min=64, help="Of the dense model in training.")] = 512,
    train_layers: Annotated[int, typer.Option("--train-layers", metavar="N", min=2, help="Of the same.")] = 7,
    memory_dim: Annotated[int, typer.Option("--memory-dim", metavar="N", min=1, help="Numbers that a token reads (d_mem).")] = 256,
    hash_heads: Annotated[int, typer.Option("--hash-heads", metavar="N", min=1, help="Rows that it reads of each order, 2 and 3.")] = 4,
    table_optimizer: Annotated[
        str, typer.Option("--table-optimizer", metavar="O", help="adam, or adagrad: one number of state a row.")
    ] = "adam",
    optimizer: bench_options.OptimizerOption = DEFAULT_OPTIMIZER,
    seconds: bench_options.SecondsOption = 60.0,
    rounds: bench_options.RoundsOption = bench_options.DEFAULT_ROUNDS,
    folder: Annotated[Path | None, typer.Option("--folder", metavar="DIR", help="Where tables are written; default: here.")] = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="In inference only: no table, RAM, disk; not: no memory, cold cache, no prefetch.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE", help="Draw the ratios: a name that ends in png, svg or pdf.")
    ] = None,
    corpus: corpus_options.CorpusOption = None,
    corpus_bytes: corpus_options.CorpusBytesOption = None,
    text_column: corpus_options.TextColumnOption = None,
    tokenizer: corpus_options.TokenizerOption = None,
    vocab_size: bench_options.VocabSizeOption = None,
    cache: corpus_options.CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """What it costs to keep the tables in host RAM or on disk: throughput of inference, step time of training, by placement.

    Inference follows the paper's Table 4: one memory layer in a dense model, 512 sequences of real text. Training times whole steps.
    Tables hold generated rows, every byte of them on disk; they are removed at the end.

    Example: engramctl bench offload --table 10GB --table-cache 64MiB,256MiB,1GiB
    Example: engramctl bench offload --what training --table 10GB --figure offload.svg
    """
    from engramctl.units import parse_bytes

    _check(what, _WHAT, "--what")
    _check(table_optimizer, ("adam", "adagrad"), "--table-optimizer")
    caches = tuple(parse_bytes(one) for one in sweep_options.items(table_cache or ["256MiB"]))
    lengths = tuple(round(number) for number in sweep_options.numbers("--rows", rows))
    if lengths and min(lengths) < 1:
        raise UserError(f"--rows {min(lengths)}: at least 1 is expected")
    if figure is not None:
        _check(figure.suffix.lower().lstrip("."), ("png", "svg", "pdf"), "--figure")
    text = _text(sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size), cache)
    table_bytes = parse_bytes(table)
    inference: ServingSpeed | None = None
    training: TrainingSpeed | None = None
    with _place(folder) as made, console.StageProgress() as progress:
        place = Path(made)

        def tell(line: str) -> None:
            console.note(f"{stage} {line}")

        if what != "training":
            stage = "inference"
            shape = width, layers, memory_dim, hash_heads
            inference = _inference(shape, table_bytes, row_format, caches, lengths, sequences, brief, place, text, tell, progress)
        if what != "inference":
            stage = "training"
            shape = train_width, train_layers, memory_dim, hash_heads
            kinds = optimizer, table_optimizer
            training = _training(shape, table_bytes, kinds, cache_share, lengths, (rounds, seconds), place, text, tell, progress)
    _show(inference, training, figure, as_json)


def _inference(
    shape: tuple[int, int, int, int],
    table_bytes: int,
    row_format: str,
    caches: tuple[int, ...],
    lengths: tuple[int, ...],
    sequences: int,
    brief: bool,
    folder: Path,
    text: "Corpus",
    tell: Callable[[str], None],
    progress: Any,
) -> "ServingSpeed":
    from engram.benchmarks.offload import Shape
    from engram.benchmarks.offload_serving import ServingSetup, measure_serving
    from engram.memory.placement.formats import FORMATS
    from engram.training.machine import settle_process
    from engramctl.schedule import local_workers

    _check(row_format, tuple(FORMATS), "--row-format")
    settle_process(local_workers("cpu"))
    model = Shape(*shape).model(text.vocab_size, 2)
    assert model.memory is not None
    rows = round(table_bytes / FORMATS[row_format].row_bytes(model.memory.row_dim))
    setup = ServingSetup(Shape(*shape).model(text.vocab_size, rows), row_format, caches, sequences, folder, brief, lengths)
    return measure_serving(setup, text, tell, progress)


def _training(
    shape: tuple[int, int, int, int],
    table_bytes: int,
    kinds: tuple[str, str],
    cache_share: float,
    lengths: tuple[int, ...],
    rounds: tuple[int, float],
    folder: Path,
    text: "Corpus",
    tell: Callable[[str], None],
    progress: Any,
) -> "TrainingSpeed":
    from engram.benchmarks.offload import Shape, with_rows
    from engram.benchmarks.offload_training import TrainingSetup, measure_placed_training
    from engram.training_config import TrainConfig

    train = TrainConfig.model_validate(
        {
            "steps": 1,
            "batch_size": _BATCH,
            "seq_len": _SEQ_LEN,
            "learning_rate": 0.01,
            "optimizer": {"kind": kinds[0]},
            "table_optimizer": kinds[1],
        }
    )
    setup = TrainingSetup(Shape(*shape).model(text.vocab_size, 2), train, cache_share, *rounds, folder, lengths)
    assert setup.model.memory is not None
    rows = round(table_bytes / (4 * (setup.model.memory.row_dim + setup.state_dim)))
    setup = TrainingSetup(with_rows(setup.model, rows), train, cache_share, *rounds, folder, lengths)
    return measure_placed_training(setup, text, tell, progress)


def _show(inference: "ServingSpeed | None", training: "TrainingSpeed | None", figure: Path | None, as_json: bool) -> None:
    from engramctl import bench_offload_report as report

    if as_json:
        console.print_json({"bench": "offload", **report.as_json(inference, training)})
    else:
        report.print_offload(inference, training)
    if figure is not None:
        from engramctl.figures.offload import offload_figure
        from engramctl.figures.save import save

        (path,) = save(offload_figure(inference, training), figure.parent, figure.stem, [figure.suffix.lower().lstrip(".")])
        console.note(f"figure: {path}")


def _check(value: str, allowed: tuple[str, ...], option: str) -> None:
    if value not in allowed:
        raise UserError(f"{option} {value}: {', '.join(allowed[:-1])} or {allowed[-1]} is expected")


def _text(overrides: dict[str, Any], cache: Path | None) -> "Corpus":
    from engram.cache import default_cache
    from engram.corpus.prepare import prepare_corpus
    from engramctl.sweepfile import find_sweep, load_sweep

    spec = load_sweep(find_sweep(DEFAULT_SWEEP), {"corpus": overrides}).corpus
    with console.StageProgress() as progress:
        return prepare_corpus(spec, cache or default_cache(), progress)


def _place(folder: Path | None) -> "tempfile.TemporaryDirectory[str]":
    """A folder for the tables that goes with what is in it."""
    try:
        return tempfile.TemporaryDirectory(prefix="engramctl-offload-", dir=folder or Path.cwd())
    except OSError as problem:
        raise UserError(f"--folder {folder or Path.cwd()} can't be written: {problem.strerror}") from None
