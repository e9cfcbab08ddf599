"""`engramctl bench train | memory | compare | sweep | eval | offload`"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.errors import UserError
from engram.recipe import DEFAULT_OPTIMIZER
from engramctl import bench_options, console, sweep_options
from engramctl import options as corpus_options
from engramctl.commands.bench_offload import offload
from engramctl.results_options import DEFAULT_SWEEP, JsonOption

if TYPE_CHECKING:
    from engram.benchmarks.shapes import Setup
    from engram.corpus.sources import CorpusSpec

_PRECISIONS = ("auto", "bf16", "fp32")

bench = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Measure how fast training is on this machine, and where time goes."
)


@bench.command("train")
def train(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    rho: bench_options.RhoOption = bench_options.DEFAULT_RHO,
    optimizer: bench_options.OptimizerOption = DEFAULT_OPTIMIZER,
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
    _check_size(size)
    text = _corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    setup = _setup(size, optimizer, text, device, precision, cache)
    from engram.benchmarks.train import measure_training
    from engram.benchmarks.workers import train_side_by_side
    from engramctl import bench_report

    with console.StageProgress() as progress:
        speed = measure_training(setup, rho, seconds, rounds, progress)
        side = None
        if workers > 1:
            progress(f"training {workers} copies side by side", 0, None)
            side = train_side_by_side(setup, speed.model, rho, workers, seconds, rounds)
    if as_json:
        console.print_json(_named("train", setup, seconds, rounds, rho) | bench_report.train_json(speed, side))
    else:
        bench_report.print_train(setup, rho, speed, side)


@bench.command("memory")
def memory(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    optimizer: bench_options.OptimizerOption = DEFAULT_OPTIMIZER,
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
    _check_size(size)
    text = _corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    setup = _setup(size, optimizer, text, device, precision, cache)
    from engram.benchmarks.memory import measure_memory
    from engramctl import bench_report

    with console.StageProgress() as progress:
        speed = measure_memory(setup, seconds, rounds, progress)
    for name, reason in speed.left_out.items():
        console.note(f"{name} is left out: {reason}")
    if as_json:
        console.print_json(_named("memory", setup, seconds, rounds) | bench_report.as_json(speed))
    else:
        bench_report.print_memory(setup, speed)


@bench.command("compare")
def compare(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    rho: bench_options.RhoOption = bench_options.DEFAULT_RHO,
    optimizer: bench_options.OptimizerOption = DEFAULT_OPTIMIZER,
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
    _check_size(size)
    text = _corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    from engram.benchmarks.transformers_model import require_transformers

    require_transformers()
    setup = _setup(size, optimizer, text, device, precision, cache)
    from engram.benchmarks.compare import measure_comparison
    from engramctl import bench_report

    with console.StageProgress() as progress:
        comparison = measure_comparison(setup, rho, table_rows, seconds, rounds, progress)
    if as_json:
        console.print_json(_named("compare", setup, seconds, rounds, rho) | bench_report.as_json(comparison))
    else:
        bench_report.print_comparison(setup, rho, comparison)


@bench.command("sweep")
def sweep(
    size: bench_options.SizeOption = bench_options.DEFAULT_SIZE,
    rho: bench_options.RhoOption = bench_options.DEFAULT_RHO,
    optimizer: bench_options.OptimizerOption = DEFAULT_OPTIMIZER,
    trials: Annotated[int, typer.Option("--trials", metavar="N", min=1, help="Trials of equal length: seeds of one model.")] = 8,
    workers: sweep_options.WorkersOption = None,
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
    _check_size(size)
    _check_precision(precision)
    from engram.training.machine import resolve_device
    from engramctl import bench_report
    from engramctl.schedule import Resources, local_workers
    from engramctl.sweep_bench import bench_spec, measure_sweep

    text = _corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    spec = bench_spec(size, rho, trials, {"corpus": text, "train": {"optimizer": {"kind": optimizer}, "precision": precision}})
    resources = Resources(device, min(trials, workers or local_workers(resolve_device(device).type)), None)
    speed = measure_sweep(spec, _prepared(spec.corpus, cache), resources, seconds)
    if as_json:
        setting = {"size": size, "rho": rho, "optimizer": optimizer, "corpus": spec.corpus.source, "seconds": seconds}
        console.print_json({"bench": "sweep", "setting": setting, **bench_report.sweep_json(speed)})
    else:
        bench_report.print_sweep(size, rho, optimizer, speed)
    if speed.problems:
        for problem in speed.problems:
            console.note(problem)
        raise typer.Exit(1)


@bench.command("eval")
def evaluation(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task or group of lm-eval's whose answers are choices.")],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", metavar="DIR", help="The model.", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Most items of each task.")] = 20,
    max_length: Annotated[
        int, typer.Option("--max-length", metavar="N", min=16, help="Most tokens that the model reads at a time: enough for whole prompts.")
    ] = 4096,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Folder with the tasks' data.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    rounds: bench_options.RoundsOption = 1,
    device: sweep_options.DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """What is saved by computing the common beginnings of prompts once: tokens and time, on one process with one thread.

    Example: engramctl bench eval mmlu --checkpoint results/smoke/checkpoints/0123456789ab --data benchmarks/ --offline
    """
    from engram.evaluation.environment import require_lm_eval

    require_lm_eval()
    from engram.benchmarks.machine import Machine
    from engram.evaluation.adapter import EngramLM
    from engram.evaluation.run import evaluate
    from engram.evaluation.sharing import Asked, measure_prefix_sharing
    from engram.training.machine import resolve_device, settle_process
    from engram.training.restore import load_final
    from engramctl import bench_report

    settle_process(1)
    restored = load_final(checkpoint, resolve_device(device))
    asked = Asked()
    evaluate(asked, [task], data=data, limit=limit, offline=offline, answer_bpb=False)
    model = EngramLM.from_restored(restored, max_length)
    sharing = measure_prefix_sharing(model, asked.requests, rounds)
    machine = replace(Machine.of(restored.trial.train, restored.model.head_weight.device), precision=model.precision)
    if as_json:
        setting = {"task": task, "limit": limit, "max_length": max_length, "trial": restored.trial.id, "rounds": rounds}
        console.print_json(
            {"bench": "eval", "setting": setting, "machine": bench_report.as_json(machine), **bench_report.sharing_json(machine, sharing)}
        )
    else:
        bench_report.print_sharing(task, machine, sharing)


bench.command("offload")(offload)


def _check_size(name: str) -> None:
    """Before anything that takes time."""
    from engram.benchmarks.shapes import named_size

    named_size(name)


def _check_precision(precision: str) -> None:
    if precision not in _PRECISIONS:
        raise UserError(f"precision '{precision}' is unknown; use {', '.join(_PRECISIONS[:-1])} or {_PRECISIONS[-1]}")


def _corpus_overrides(
    corpus: str | None, corpus_bytes: str | None, text_column: str | None, tokenizer: str | None, vocab_size: int | None
) -> dict[str, Any]:
    return sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)


def _setup(size: str, optimizer: str, text: Mapping[str, Any], device: str, precision: Any, cache: Path | None) -> "Setup":
    """Settle this process as a training one and prepare what is measured."""
    _check_precision(precision)
    from engram.benchmarks.shapes import Setup, named_size
    from engram.recipe import learning_rate
    from engram.training.machine import resolve_device, settle_process
    from engramctl.sweepfile import find_sweep, load_sweep

    shape, place = named_size(size), resolve_device(device)
    learning_rate(shape, optimizer)
    spec = load_sweep(find_sweep(DEFAULT_SWEEP), {"corpus": text}).corpus
    prepared = _prepared(spec, cache)
    settle_process(1)
    return Setup(shape, optimizer, prepared, place, precision)


def _prepared(spec: "CorpusSpec", cache: Path | None) -> Any:
    """The prepared corpus."""
    from engram.cache import default_cache
    from engram.corpus.prepare import prepare_corpus

    with console.StageProgress() as progress:
        return prepare_corpus(spec, cache or default_cache(), progress)


def _named(name: str, setup: "Setup", seconds: float, rounds: int, rho: float | None = None) -> dict[str, Any]:
    """What the JSON of a bench begins with."""
    setting = {
        "size": setup.size.name,
        "optimizer": setup.optimizer,
        "corpus": setup.corpus.meta["spec"]["source"],
        "vocab_size": setup.corpus.vocab_size,
        "tokens_per_step": setup.tokens_per_step,
        "seconds": seconds,
        "rounds": rounds,
    }
    return {"bench": name, "setting": setting | ({} if rho is None else {"rho": rho})}
