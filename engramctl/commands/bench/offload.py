"""`engramctl bench offload`"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engram.files import temporary_folder
from engram.scaling.recipe import DEFAULT_RECIPE
from engramctl.commands.bench.setup import default_text, prepared
from engramctl.commands.options import bench as bench_options
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.commands.options.parse import fields_named, items, numbers, one_of
from engramctl.commands.options.results import JsonOption
from engramctl.present import console
from engramctl.present.json import print_json
from engramctl.present.progress import StageProgress

if TYPE_CHECKING:
    from engram.benchmarks.offload import Shape
    from engram.benchmarks.results import ServingSpeed, TrainingSpeed
    from engram.config.training import TrainConfig
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
    optimizer: bench_options.OptimizerOption = DEFAULT_RECIPE.optimizer,
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
    from engramctl.sweep.units import parse_bytes

    one_of("--what", what, _WHAT)
    one_of("--table-optimizer", table_optimizer, ("adam", "adagrad"))
    caches = tuple(parse_bytes(one) for one in items(table_cache or ["256MiB"]))
    lengths = tuple(round(number) for number in numbers("--rows", rows))
    if lengths and min(lengths) < 1:
        raise UserError(f"--rows {min(lengths)}: at least 1 is expected")
    if figure is not None:
        one_of("--figure", figure.suffix.lower().lstrip("."), ("png", "svg", "pdf"))
    text = prepared(default_text(sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)), cache)
    table_bytes = parse_bytes(table)
    inference: ServingSpeed | None = None
    training: TrainingSpeed | None = None
    from engram.benchmarks.offload import Shape
    from engram.benchmarks.offload_serving import ServingSetup, measure_serving
    from engram.benchmarks.offload_training import TrainingSetup, measure_placed_training
    from engram.memory.placement.formats import FORMATS

    with _folder_for_tables(folder) as made, StageProgress() as progress:
        if what != "training":
            one_of("--row-format", row_format, tuple(FORMATS))
            _settle_for_inference()
            shape = Shape(width, layers, memory_dim, hash_heads)
            serving = ServingSetup(
                model=shape.model(text.vocab_size, round(table_bytes / FORMATS[row_format].row_bytes(_row_dim(shape, text)))),
                row_format=row_format,
                caches=caches,
                sequences=sequences,
                folder=made,
                brief=brief,
                lengths=lengths,
            )
            inference = measure_serving(serving, text, _teller("inference"), progress)
        if what != "inference":
            shape = Shape(train_width, train_layers, memory_dim, hash_heads)
            with fields_named(width="train_width"):
                model = shape.model(text.vocab_size, 2)
            small = TrainingSetup(
                model=model,
                train=_train_config(optimizer, table_optimizer),
                cache_share=cache_share,
                rounds=rounds,
                seconds=seconds,
                folder=made,
                lengths=lengths,
            )
            rows_trained = round(table_bytes / (4 * (_row_dim(shape, text) + small.state_dim)))
            setup = replace(small, model=shape.model(text.vocab_size, rows_trained))
            training = measure_placed_training(setup, text, _teller("training"), progress)
    _show(inference, training, figure, as_json)


def _row_dim(shape: "Shape", text: "Corpus") -> int:
    memory = shape.model(text.vocab_size, 2).memory
    assert memory is not None
    return memory.row_dim


def _train_config(optimizer: str, table_optimizer: str) -> "TrainConfig":
    from engram.config.training import TrainConfig

    fixed = {"steps": 1, "batch_size": _BATCH, "seq_len": _SEQ_LEN, "learning_rate": 0.01}
    return TrainConfig.model_validate({**fixed, "optimizer": {"kind": optimizer}, "table_optimizer": table_optimizer})


def _settle_for_inference() -> None:
    from engram.training.machine import resolve_device, settle_process
    from engramctl.cluster.session import local_workers

    settle_process(local_workers("cpu"), resolve_device("cpu"))


def _teller(stage: str) -> Callable[[str], None]:
    """A function that prints a line of news after the name of the stage."""
    return lambda line: console.note(f"{stage} {line}")


def _show(inference: "ServingSpeed | None", training: "TrainingSpeed | None", figure: Path | None, as_json: bool) -> None:
    from engramctl.present.tables import bench_offload as tables

    if as_json:
        print_json({"bench": "offload", **tables.as_json(inference, training)})
    else:
        tables.print_offload(inference, training)
    if figure is not None:
        from engramctl.present.figures.offload import offload_figure
        from engramctl.present.figures.save import save

        (path,) = save(offload_figure(inference, training), figure.parent, figure.stem, [figure.suffix.lower().lstrip(".")])
        console.note(f"figure: {path}")


@contextmanager
def _folder_for_tables(folder: Path | None) -> Iterator[Path]:
    """A temporary folder for the tables, removed with everything in it; those that killed commands have left there go first."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(temporary_folder("engramctl-offload-", folder or Path.cwd()))
        except OSError as problem:
            raise UserError(f"--folder {folder or Path.cwd()} can't be written: {problem.strerror}") from None
        yield made
