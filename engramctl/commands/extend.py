"""`engramctl extend CHECKPOINT`"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engramctl.commands.interrupts import EXIT_CODE
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options.models import CheckpointArgument
from engramctl.commands.options.results import JsonOption
from engramctl.commands.options.sweep import CheckpointEveryOption, DeviceOption
from engramctl.present import console
from engramctl.present.json import print_json

if TYPE_CHECKING:
    from engramctl.results.checkpoints import ExtensionPlace


def extend(
    checkpoint: CheckpointArgument,
    length: Annotated[int, typer.Option("--length", metavar="L", help="Tokens of a sequence: more than the trial was trained on.")],
    tokens: Annotated[
        float | None, typer.Option("--tokens", metavar="N", help="Training tokens, e.g. 2e6. Default: 11.5 % of the trial's own.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="R", help="Peak learning rate. Default: a tenth of the trial's own.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder that gets the new checkpoint, as DIR/ID. Default: beside the old one, in its sweep."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="CHECKPOINT", help="Model that finds LongPPL's key tokens. Default: the extended one itself."),
    ] = None,
    val_tokens: Annotated[
        int, typer.Option("--val-tokens", metavar="N", min=1, help="Tokens of long validation documents that LongPPL reads, at most.")
    ] = 65_536,
    device: DeviceOption = "auto",
    checkpoint_every: CheckpointEveryOption = "1m",
    cache: corpus_options.CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a finished trial on longer sequences with YaRN, and measure both models at the new length.

    The new checkpoint is one as any other: `sample` and evaluations read up to L tokens. The same command continues one that was stopped.

    Example: engramctl extend results/allocation/checkpoints/0123456789ab --length 1024
    """
    from engram.cache import default_cache
    from engram.training.checkpoints.restore import load_final
    from engram.training.extension import extension
    from engram.training.machine import resolve_device, settle_process
    from engramctl.present.tables.extension import print_extension
    from engramctl.results.checkpoints import extension_place, home_of
    from engramctl.results.corpora import find_corpus
    from engramctl.sweep.extend import Extension, measure_again, train_extension
    from engramctl.sweep.units import parse_duration

    checkpoint_s, where = parse_duration(checkpoint_every), resolve_device(device)
    source = load_final(checkpoint, where)
    trial = extension(source.trial, length, tokens, rate)
    place = extension_place(source.folder, source.trial.id, trial, out)
    corpus = find_corpus(source.trial, cache or default_cache(), home_of(source.folder, source.trial.id).sweep)
    reference_model = None if reference is None else load_final(reference, where)
    todo = Extension(source, trial, corpus, place, reference_model, val_tokens)
    with _locked(place), _stoppable():
        settle_process(1, where)  # may compile kernels, so it waits until nothing can be refused any more
        row = todo.row
        if row is not None and todo.is_measured:
            console.note(f"{place.checkpoint} is there already")
        elif row is not None:
            console.note("trained already; measuring again ...")
            row = measure_again(todo, load_final(place.checkpoint, where).model, row, where)
        else:
            from engramctl.present.live.sweep import SweepDisplay

            console.note(f"extending to {length} tokens: {trial.train.tokens:,} training tokens in {trial.train.steps} steps")
            with SweepDisplay([trial], 0) as display:
                done = train_extension(todo, where, checkpoint_s, display.on_event)
            if isinstance(done, str):
                console.note(f"nothing was kept; a lower --rate than {trial.train.learning_rate:.3g} may help")
                raise typer.Exit(1)
            row = done
    if as_json:
        print_json({"checkpoint": str(place.checkpoint), "record": str(place.record), **row})
    else:
        print_extension(console.out(), place.checkpoint, row)


@contextlib.contextmanager
def _locked(place: "ExtensionPlace") -> Iterator[None]:
    """Lock the place for this process; UserError when another process holds it, or it can't be written."""
    from filelock import FileLock, Timeout

    file = place.checkpoint / ".lock"
    try:
        place.checkpoint.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire(blocking=False)
    except Timeout:  # a subclass of OSError, so it comes first
        raise UserError(f"extension {place.checkpoint.name} is being trained by another process") from None
    except OSError as problem:
        raise UserError(f"{place.checkpoint} can't be written: {problem.strerror or problem}") from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            place.checkpoint.rmdir()  # fails unless it is empty, because nothing was kept


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.note("stopped; the same command continues from the last checkpoint")
        raise typer.Exit(EXIT_CODE) from None
