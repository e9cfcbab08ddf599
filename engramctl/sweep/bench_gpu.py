"""`bench gpu`: all measurements of one GPU in one go, each in a process of its own, the most important first."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engram.benchmarks.gpu.beside import measure_beside
from engram.benchmarks.gpu.busy import utilisation
from engram.benchmarks.gpu.environment import RHO, STEP_TOKENS, Environment, Tell
from engram.benchmarks.gpu.exact import measure_first_losses, measure_late_losses
from engram.benchmarks.gpu.longer import measure_longer
from engram.benchmarks.gpu.measurement import Measurement
from engram.benchmarks.gpu.packed import measure_packed
from engram.benchmarks.gpu.peak import measure_peak
from engram.benchmarks.gpu.speed import measure_speed_of
from engram.benchmarks.gpu.start import measure_start
from engram.benchmarks.results.gpu import Bar, GpuPart
from engram.benchmarks.workers import end_with_parent
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.scaling.recipe import DEFAULT_RECIPE
from engramctl.cluster.events import Event
from engramctl.cluster.session import Resources
from engramctl.sweep.bench import bench_spec, measure_sweep
from engramctl.sweep.run import Progress

_METHOD = "forkserver"
_PRELOADED = ("torch", "torch._dynamo", "engram.training.trainer", "engramctl.sweep.bench_gpu")
"""Imported once for all parts, which takes longer than many a measurement; nothing of it touches the GPU. The first optimiser would import
`torch._dynamo` otherwise."""
_NO_DRIVER = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Lets `torch.cuda.is_available` ask without waking the driver, which could not be used after a fork."""
_SWEEP_SIZE, _SWEEP_TRIALS, _SWEEP_TIMES = "10m", 3, 4
_COMPILE_S = 30.0
_PACKED_TOKENS = 2_048


@dataclass(frozen=True)
class Part:
    """A measurement with the time that it may take."""

    measure: Measurement
    limit_s: float


def _measure_whole_sweep(environment: Environment, tell: Tell) -> None:
    """A real sweep of a few trials, one after the other, and how busy the GPU is meanwhile."""
    size, tokens = ("1m", 256) if environment.rehearsal else (_SWEEP_SIZE, STEP_TOKENS)
    seq_len = DEFAULT_RECIPE.sequence_and_batch[size][0]
    corpus = Corpus.open(environment.corpus_folder)
    changes = {"corpus": {"vocab_size": corpus.vocab_size}, "train": {"batch_size": max(1, tokens // seq_len)}}
    spec = bench_spec(size, RHO, _SWEEP_TRIALS, changes)
    watcher = _Sampled()
    resources = Resources(environment.device_name, 1, None)
    speed = measure_sweep(spec, corpus, resources, _SWEEP_TIMES * environment.seconds, watcher)
    tell(wall_s=speed.wall_s, startup_s=speed.startup_s, tokens_per_s=speed.tokens_per_s, problems=speed.problems)
    tell(train_share=speed.efficiency, validation_share=speed.validation_s / speed.wall_s, busy_share=watcher.busy)


class _Sampled:
    """A sweep's watcher that looks how busy the GPU is while trials run, from before their first worker starts."""

    busy: float | None = None

    def note(self, line: str) -> None:
        pass

    @contextmanager
    def stages(self) -> Iterator[Progress]:
        yield lambda stage, done, total: None

    @contextmanager
    def trials(self, left: Sequence[TrialConfig], done: int) -> Iterator[Callable[[Event], None]]:
        with utilisation() as mean:
            yield lambda event: None
            self.busy = mean()


SPEEDS = ("10m", "30m", "100m", "300m")
PARTS: dict[str, Part] = {
    "peak": Part(measure_peak, 40),
    **{f"speed {size}": Part(measure_speed_of(size), 60) for size in SPEEDS},
    "beside 10m": Part(measure_beside("10m", _COMPILE_S), 120),
    "memory 10m": Part(measure_longer("10m"), 90),
    "pack 1m": Part(measure_packed("1m", _PACKED_TOKENS), 90),
    "speed 1b": Part(measure_speed_of("1b", None), 75),
    "beside 100m": Part(measure_beside("100m", _COMPILE_S), 120),
    "start": Part(measure_start, 120),
    "exact": Part(measure_first_losses, 60),
    "sweep": Part(_measure_whole_sweep, 120),
    "losses": Part(measure_late_losses, 240),
}
"""In the order in which they run."""


def run_parts(
    names: Sequence[str], environment: Environment, limit_s: float, file: Path | None, tell: Callable[[str], None]
) -> list[GpuPart]:
    """Run parts one after the other; what they find is in the file as soon as they say it.

    Args:
        names: of parts; they run in the order of `PARTS`.
        environment: where and for how long.
        limit_s: seconds for all of them; a part whose turn comes later is left out.
        file: JSON, written anew with every value; None: nowhere.
        tell: told of each part that begins.
    """
    os.environ.setdefault(_NO_DRIVER, "1")
    context: Any = multiprocessing.get_context(_METHOD)
    context.set_forkserver_preload(list(_PRELOADED))
    found: list[GpuPart] = []
    ends = time.monotonic() + limit_s
    for name in (name for name in PARTS if name in names):
        left = ends - time.monotonic()
        if left <= 0:
            found.append(GpuPart(name, 0.0, "no time was left for it", {}))
            continue
        tell(name)

        def keep(part: GpuPart) -> None:
            if file is not None:
                _write(file, [*found, part])

        found.append(_run(context, name, environment, min(left, PARTS[name].limit_s), keep))
        if file is not None:
            _write(file, found)
    return found


def _run(context: Any, name: str, environment: Environment, limit_s: float, keep: Callable[[GpuPart], None]) -> GpuPart:
    """Run a part in a process of its own, for `limit_s` seconds at most."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, name, environment))
    started = time.monotonic()
    process.start()
    theirs.close()
    values: dict[str, Any] = {}
    problem: str | None = "its process died"
    while True:
        if not ours.poll(max(0.0, started + limit_s - time.monotonic())):
            problem = f"it was stopped after {limit_s:.0f} s"
            break
        try:
            said = ours.recv()
        except EOFError:
            break
        if not isinstance(said, dict):
            problem = said
            break
        values |= said
        keep(GpuPart(name, time.monotonic() - started, "it was cut off", values))
    ours.close()
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()
    return GpuPart(name, time.monotonic() - started, problem, values)


def _measure(pipe: Connection, name: str, environment: Environment) -> None:
    """In the process: tell values as mappings, then None, or why it failed in one line."""
    end_with_parent()
    try:
        PARTS[name].measure(environment, lambda **values: pipe.send(values))
        pipe.send(None)
    except Exception as problem:  # whatever it is, the other parts go on
        with suppress(OSError):
            pipe.send(f"{type(problem).__name__}: {(str(problem).strip() or 'no more is known').splitlines()[0]}")


def _write(file: Path, found: Sequence[GpuPart]) -> None:
    # Plainly, not atomically: the file may be a device, and a broken end is worth less than a missing one.
    file.write_text(json.dumps(as_json(found), indent=1) + "\n", encoding="utf-8")


def as_json(found: Sequence[GpuPart]) -> dict[str, Any]:
    """All parts and all bars."""
    parts = {part.name: {"wall_s": part.wall_s, "problem": part.problem, **part.values} for part in found}
    return {"bench": "gpu", "parts": parts, "bars": [vars(bar) | {"holds": bar.holds} for bar in bars(found)]}


def bars(found: Sequence[GpuPart]) -> list[Bar]:
    """What must hold on an H100, against what was found."""
    parts = {part.name: part.values for part in found}

    def value(part: str, *path: str) -> float | None:
        inner: Any = parts.get(part, {})
        for name in path:
            inner = inner.get(name) if isinstance(inner, dict) else None
        return inner

    def share(above: float | None, below: float | None) -> float | None:
        return None if above is None or not below else above / below

    peak = value("peak", "product_flops_per_s")
    wanted_speed = {"10m": 2.0e6, "30m": 1.5e6, "100m": 1.0e6, "300m": 0.45e6}
    listed = [Bar(f"{size}, {STEP_TOKENS:,} tokens a step", _speed(value, size), wanted_speed[size], False, "tokens/s") for size in SPEEDS]
    listed += [
        Bar(f"{size}, products counted", value(f"speed {size}", "flops_per_s"), flops, False, "FLOP/s")
        for size, flops in (("100m", 80e12), ("300m", 100e12))
    ]
    listed.append(Bar("1b, of the measured peak of products", share(value("speed 1b", "flops_per_s"), peak), 0.25, False, "share"))
    together = [packed["median"] for packed in (parts.get("pack 1m", {}).get("together") or {}).values()]
    listed.append(Bar("1m, trials side by side, together", max(together, default=None), 3.0e6, False, "tokens/s"))
    for size in ("10m", "100m"):
        listed.append(
            Bar(f"{size} over transformers at its fastest", value(f"beside {size}", "over_theirs", "median"), 5.0, False, "times")
        )
        listed.append(Bar(f"{size} over our dense model", value(f"beside {size}", "over_dense", "median"), 0.6, False, "times"))
    for case, name in (("rho 0.75", "step at rho 0.75 over rho 1"), ("tables x 16", "tables x 16"), ("tables x 256", "tables x 256")):
        listed.append(Bar(f"10m, {name}", value("memory 10m", "ratio", case, "median"), 1.02, True, "times"))
    listed += [Bar(f"{size}, GPU busy in steps", value(f"speed {size}", "busy_share"), 0.9, False, "share") for size in SPEEDS]
    wall = value("sweep", "wall_s")
    length = "" if wall is None else f" of {wall:.0f} s"
    listed.append(Bar(f"10m, GPU busy in a sweep{length}, start-up included", value("sweep", "busy_share"), 0.8, False, "share"))
    listed.append(Bar("first step of a worker, kernels cached", value("start", "full", "first_step_s"), 8.0, True, "s"))
    for cache, most in (("empty", 0.1), ("full", 0.01)):
        listed.append(Bar(f"compiling in a sweep of 8 rhos, cache {cache}", _compile_share(value, cache), most, True, "share"))
    for optimizer in ("adamw", "muon"):
        listed.append(Bar(f"3 fp32 steps against a CPU, {optimizer}", value("exact", "largest_difference", optimizer), 1e-4, True, "nats"))
    if (between := value("losses", "between_seeds")) is not None:
        listed.append(Bar("500 steps against plain fp32", value("losses", "mean_difference"), between, True, "nats"))
    return listed


def _speed(value: Callable[..., float | None], size: str) -> float | None:
    return value(f"speed {size}", "tokens_per_s", "median")


_TOKENS_PER_PARAMETER = 20
"""Of the trials that a sweep's compiling is a share of: short ones."""


def _compile_share(value: Callable[..., float | None], cache: str) -> float | None:
    """Compiling for all rhos of size 10m over that and the training of as many trials at the speed that was measured."""
    compiling, trials = value("start", cache, "compiling_s"), value("start", cache, "trials")
    speed, active = _speed(value, "10m"), value("speed 10m", "p_active")
    if compiling is None or trials is None or not speed or active is None:
        return None
    return max(0.0, compiling) / (max(0.0, compiling) + trials * _TOKENS_PER_PARAMETER * active / speed)
