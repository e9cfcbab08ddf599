"""`engramctl bench gpu`"""

from pathlib import Path
from typing import Annotated

import typer

from engram.errors import UserError
from engramctl.commands.bench.setup import default_text, prepared
from engramctl.commands.options import bench as bench_options
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options import sweep as sweep_options
from engramctl.commands.options.parse import items
from engramctl.commands.options.results import JsonOption
from engramctl.present import console
from engramctl.present.json import print_json

_TEXT = {"max_bytes": 16_000_000, "vocab_size": 8192}
"""Enough for the steps that are timed, and soon prepared; the vocabulary of the larger sizes."""


def gpu(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PART", help="Parts, or words of their names: speed, 'beside 10m'.")
    ] = None,
    seconds: bench_options.SecondsOption = 2.0,
    rounds: bench_options.RoundsOption = 3,
    limit: Annotated[
        str, typer.Option("--limit", metavar="T", help="Time for all parts; those whose turn comes later are left out.")
    ] = "5m",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="JSON file that gets every value as soon as it is measured.")
    ] = None,
    corpus: corpus_options.CorpusOption = None,
    corpus_bytes: corpus_options.CorpusBytesOption = None,
    text_column: corpus_options.TextColumnOption = None,
    tokenizer: corpus_options.TokenizerOption = None,
    vocab_size: Annotated[int | None, typer.Option("--vocab-size", metavar="N", help="Tokens of that BPE. Default: 8192.")] = None,
    device: sweep_options.DeviceOption = "auto",
    cache: corpus_options.CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """All that is asked of one GPU, measured in one go: speeds, others beside ours, trials side by side, start-up, exactness.

    Each part runs in a process of its own with a time limit, the most important first. On a CPU all of it runs at size 1m:
    a rehearsal that measures nothing.

    Example: engramctl bench gpu --out gpu.json
    Example: engramctl bench gpu --only speed --only pack --seconds 5
    """
    from engram.training.machine import resolve_device
    from engramctl.sweep.units import parse_duration

    limit_s = parse_duration(limit)
    resolve_device(device)
    text = default_text(_TEXT | sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size))
    from engram.benchmarks.gpu.environment import Environment
    from engramctl.present.tables.bench_gpu import print_gpu
    from engramctl.sweep.bench_gpu import PARTS, bars, run_parts
    from engramctl.sweep.bench_gpu import as_json as everything

    wanted = items(only) or list(PARTS)
    for word in wanted:
        if not any(word in name for name in PARTS):
            raise UserError(f"--only {word}: there is no such part; there are {', '.join(PARTS)}")
    names = [name for name in PARTS if any(word in name for word in wanted)]
    _require_writable(out)
    environment = Environment(device, prepared(text, cache).folder, seconds, rounds)
    if environment.rehearsal:
        console.note("a rehearsal on the CPU, at size 1m: the numbers mean nothing")
    found = run_parts(names, environment, limit_s, out, lambda name: console.note(f"{name} ..."))
    if as_json:
        print_json(everything(found))
    else:
        print_gpu(found, bars(found))
    if out is not None:
        console.note(f"numbers: {out}")
    if any(part.problem for part in found):
        raise typer.Exit(1)


def _require_writable(out: Path | None) -> None:
    """UserError when the file can't be written: before minutes are spent on what goes into it."""
    if out is None:
        return
    try:
        with out.open("a"):
            pass
    except (OSError, ValueError) as problem:
        raise UserError(f"--out {out} can't be written: {getattr(problem, 'strerror', None) or problem}") from None
