"""`engramctl sweep`"""

import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.errors import UserError
from engramctl import console, results_options, sweep_options
from engramctl import options as corpus_options

if TYPE_CHECKING:
    from engram.config import TrialConfig
    from engram.corpus.dataset import Corpus
    from engram.memory.placement.settings import TablePlacement
    from engram.training.speed import Speed
    from engramctl.schedule import Event, Resources
    from engramctl.store import Store
    from engramctl.sweepfile import SweepSpec

PROBE_S = 4.0
"""Seconds that the steps of a trial are timed for."""
PROBE_BUDGET = 1e30
"""Any budget that pays for a step: probes are stopped by the clock."""
_REPORT_S = 1.0


def sweep(
    sweep: sweep_options.SweepNameArgument = results_options.DEFAULT_SWEEP,
    budget: sweep_options.BudgetOption = None,
    rho: sweep_options.RhoOption = None,
    size: sweep_options.SizeOption = None,
    seeds: sweep_options.SeedsOption = None,
    slots: sweep_options.SlotsOption = None,
    axis: sweep_options.AxisOption = None,
    variant: sweep_options.VariantOption = None,
    corpus: corpus_options.CorpusOption = None,
    corpus_bytes: corpus_options.CorpusBytesOption = None,
    text_column: corpus_options.TextColumnOption = None,
    tokenizer: corpus_options.TokenizerOption = None,
    vocab_size: corpus_options.VocabSizeOption = None,
    fields: sweep_options.SetOption = None,
    results: results_options.ResultsOption = results_options.DEFAULT_RESULTS,
    name: sweep_options.NameOption = None,
    workers: sweep_options.WorkersOption = None,
    devices_per_trial: sweep_options.DevicesPerTrialOption = 1,
    tables: sweep_options.TablesOption = "process",
    table_cache: sweep_options.TableCacheOption = sweep_options.DEFAULT_TABLE_CACHE,
    device: sweep_options.DeviceOption = "auto",
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="A running Ray cluster: ray://HOST:10001, HOST:PORT or auto.")
    ] = None,
    checkpoint_every: sweep_options.CheckpointEveryOption = "1m",
    cache: corpus_options.CacheOption = None,
    as_json: results_options.JsonOption = False,
) -> None:
    """Train every trial of a sweep that is not trained yet. The same command again continues it.

    Example: engramctl sweep --budget 20m
    Example: engramctl sweep allocation --size 3m --budget 1e13,3e13 --rho 0.2,0.4,0.6,0.8,1 --seeds 3
    Example: engramctl sweep --budget 20m --set model.memory.design=value --name value
    Example: engramctl sweep --size 30m --budget 1e15 --tables disk --table-cache 1GB
    Example: engramctl sweep --budget 1e12 --rho 0.5,1 --axis train.learning_rate=0.01,0.02 --name rates
    """
    from engramctl.schedule import Resources, local_workers
    from engramctl.store import Store
    from engramctl.sweepfile import find_sweep, load_sweep
    from engramctl.units import parse_duration

    started, checkpoint_s = time.monotonic(), parse_duration(checkpoint_every)
    placement = sweep_options.table_placement(tables, table_cache, devices_per_trial)
    changes = sweep_options.axis_overrides(budget, rho, size, seeds, slots, axis, variant)
    changes |= sweep_options.field_overrides(fields)
    if text_changes := sweep_options.corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size):
        changes["corpus"] = text_changes
    spec = load_sweep(find_sweep(sweep), changes)
    store = Store(results.absolute(), sweep_options.sweep_name(sweep, name))
    store.check_writable()
    with store.lock():
        manifest = store.read_manifest() or {}
        _check_same_sweep(store, spec, manifest)
        if address is None:
            from engram.training.machine import resolve_device

            place = resolve_device(device).type
            room = local_workers(place, devices_per_trial)
            workers = workers or room
            placement.check_memory(workers)
            if place == "cpu":
                threading.Thread(target=_prepare_kernels, daemon=True).start()  # while the text is read and Ray starts
        text = _corpus(store, spec, manifest, cache)
        resources = Resources(device, workers, address, devices_per_trial)
        trials = train_missing(store, spec, text, manifest, resources, checkpoint_s, placement)
        _report(store, trials, started, as_json)


def _prepare_kernels() -> None:
    from engram import kernels

    if reason := kernels.prepare():
        console.note(f"training without compiled kernels, more slowly: {reason}")


def train_missing(
    store: "Store",
    spec: "SweepSpec",
    corpus: "Corpus",
    manifest: dict[str, Any],
    resources: "Resources",
    checkpoint_s: float,
    tables: "TablePlacement | None" = None,
    on_event: "Callable[[Event], None] | None" = None,
) -> list["TrialConfig"]:
    """Train every trial of a sweep that has no row, on Ray; hold the store's lock. Returns all trials of the sweep.

    Args:
        store: where rows go.
        spec: the sweep.
        corpus: its prepared text.
        manifest: what the sweep was before; empty at its first run.
        resources: where trials run.
        checkpoint_s: seconds between checkpoints of a trial.
        tables: where the memory tables lie; None: with the models.
        on_event: called for each change of a trial.
    """
    from engramctl.schedule import ray_session

    manifest = _manifest(spec, corpus, manifest)
    known = [_known_budget(spec, b, manifest) for b in spec.budgets]
    trials = [] if None in known else _expand(spec, [b for b in known if b], corpus)
    if not trials or {trial.id for trial in trials} - store.finished_ids():
        _check_devices(store, trials, resources, wall_time=not trials)
        console.note(f"starting Ray {'at ' + resources.address if resources.address else 'on this machine'} ...")
        with ray_session(resources):
            if not trials:
                budgets = [_timed_budget(spec, corpus, resources, manifest)]
                trials = _expand(spec, budgets, corpus)
            _check_text(corpus, trials)
            manifest["trials"] = _wanted(manifest.get("trials", []), trials)
            store.write_manifest(manifest)
            if tables is not None and tables.kind == "disk":
                _say_disk(store, trials, resources)
            _train(store, spec, corpus, trials, resources, checkpoint_s, tables, on_event)
    return trials


def _check_devices(store: "Store", trials: list["TrialConfig"], resources: "Resources", wall_time: bool) -> None:
    """UserError when a trial can't be trained by so many processes, or was begun by another number of them."""
    from engram.training.replicas import check_processes
    from engram.training.shards import check_begun

    devices = resources.devices
    kind, numbered, _ = resources.device.partition(":")
    if devices > 1 and numbered:
        raise UserError(f"--device {resources.device} is a single one: with --devices-per-trial {devices} use {kind}")
    if devices > 1 and wall_time:
        raise UserError("a wall time is turned into FLOPs on one device: with --devices-per-trial give --budget in FLOPs")
    finished = store.finished_ids()
    for trial in trials:
        if trial.id not in finished:
            check_processes(trial.model, trial.train, devices)
            check_begun(store.checkpoints / trial.id, devices)


def _say_disk(store: "Store", trials: list["TrialConfig"], resources: "Resources") -> None:
    """A note of the disk that tables will take while their trials run; UserError where it is not free."""
    from engram.training.placed_tables import training_bytes
    from engramctl.schedule import cluster_workers

    finished = store.finished_ids()
    sizes = sorted((training_bytes(t.model, t.train) for t in trials if t.id not in finished and t.model.memory), reverse=True)
    needed = sum(sizes[: resources.workers or cluster_workers(resources)])
    free = shutil.disk_usage(store.folder).free
    if needed > free:
        raise UserError(f"tables on disk take up to {needed / 1e9:.3g} GB in {store.folder}, {free / 1e9:.3g} GB are free")
    if needed:
        console.note(f"tables on disk take up to {needed / 1e9:.3g} GB in {store.folder} while they train ({free / 1e9:.3g} GB are free)")


def _expand(spec: "SweepSpec", budgets: list[float], corpus: "Corpus") -> list["TrialConfig"]:
    from engramctl.expansion import expand

    return expand(spec, budgets, corpus.vocab_size, corpus.fingerprint, corpus.tokenizer_fingerprint)


def _check_same_sweep(store: "Store", spec: "SweepSpec", manifest: dict[str, Any]) -> None:
    """A results folder holds one experiment: only its axes may grow."""
    if "fixed" not in manifest:
        return
    kept = {axis: labels for axis, labels in manifest["sweep"].get("axes", {}).items() if axis in spec.axes}
    before = {axis: {label: labels[label] for label in labels.keys() & spec.axes[axis].keys()} for axis, labels in kept.items()}
    after = {axis: {label: spec.axes[axis][label] for label in labels} for axis, labels in before.items()}
    for path, was, now in [*_differences(manifest["fixed"], spec.fixed, ""), *_differences(before, after, "axes")]:
        raise UserError(
            f"{store.folder} was made with {path} = {was!r}, now it is {now!r}; choose another folder with --name, or take the change back"
        )


def _differences(was: Any, now: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        keys = sorted(was.keys() | now.keys())
        return [d for key in keys for d in _differences(was.get(key), now.get(key), f"{path}.{key}" if path else key)]
    return [] if was == now else [(path, was, now)]


def _corpus(store: "Store", spec: "SweepSpec", manifest: dict[str, Any], cache: Path | None) -> "Corpus":
    """The corpus the sweep began with if it is still in the cache, so that installing a package changes nothing; else prepared."""
    from engram.cache import default_cache
    from engram.corpus.dataset import Corpus
    from engram.corpus.prepare import prepare_corpus

    cache = cache or default_cache()
    pinned = manifest.get("corpus")
    if pinned and (folder := cache / "corpora" / pinned["folder"]).is_dir():
        return Corpus.open(folder)
    with console.StageProgress() as progress:
        corpus = prepare_corpus(spec.corpus, cache, progress)
    if pinned and corpus.fingerprint != pinned["fingerprint"]:
        raise UserError(
            f"corpus {spec.corpus.source} is not the text that {store.folder} was made with (fingerprint {corpus.fingerprint[:12]},"
            f" was {pinned['fingerprint'][:12]}); choose another folder with --name"
        )
    return corpus


def _manifest(spec: "SweepSpec", corpus: "Corpus", old: dict[str, Any]) -> dict[str, Any]:
    pinned = {
        "folder": corpus.folder.name,
        "fingerprint": corpus.fingerprint,
        "tokenizer_fingerprint": corpus.tokenizer_fingerprint,
        "vocab_size": corpus.vocab_size,
    }
    return {
        "sweep": spec.model_dump(mode="json"),
        "fixed": spec.fixed,
        "corpus": pinned,
        "budgets": old.get("budgets", {}),
        "trials": old.get("trials", []),
    }


def _known_budget(spec: "SweepSpec", text: str, manifest: dict[str, Any]) -> float | None:
    """FLOPs of a budget; None for a wall time that was not turned into FLOPs yet."""
    from engramctl.sweepfile import budget_key, wall_seconds
    from engramctl.units import parse_flops

    return parse_flops(text) if wall_seconds(text) is None else manifest["budgets"].get(budget_key(spec, text))


def _timed_budget(spec: "SweepSpec", corpus: "Corpus", resources: "Resources", manifest: dict[str, Any]) -> float:
    """Time a few steps of the likely slowest trials of each size and take the largest budget that fits the wall time."""
    from engramctl.budget import fit_wall_time
    from engramctl.schedule import cluster_workers, measure_speeds
    from engramctl.sweepfile import budget_key, wall_seconds

    text = spec.budgets[0]
    seconds = wall_seconds(text)
    assert seconds is not None
    began = time.monotonic()
    trials = _expand(spec, [PROBE_BUDGET], corpus)
    ends = _both_ends(trials)
    console.note(f"timing a few steps of {len(ends)} trials ...")
    speeds = measure_speeds(ends, corpus.folder, resources, PROBE_S)
    slowest: dict[str, Speed] = {}
    for trial, speed in zip(ends, speeds, strict=True):
        if trial.size not in slowest or speed.step_s > slowest[trial.size].step_s:
            slowest[trial.size] = speed
            variant = f" {trial.variant}" if trial.variant else ""
            tokens_per_s = console.human(trial.train.tokens_per_step / speed.step_s)
            console.note(f"  {trial.size}{variant} rho {trial.rho:.3g}: {tokens_per_s} tokens/s")
    left = seconds - (time.monotonic() - began)
    flops = fit_wall_time(left, trials, slowest, resources.workers or cluster_workers(resources))
    console.note(f"budget {text}: {flops:.2g} FLOPs a trial for {len(trials)} trials; kept with the sweep")
    manifest["budgets"][budget_key(spec, text)] = flops
    return flops


def _both_ends(trials: list["TrialConfig"]) -> list["TrialConfig"]:
    """Most experts and most memory of every size and variant: which of the two is slower depends on the machine."""
    series: dict[tuple[str, str], list[TrialConfig]] = {}
    for trial in trials:
        if trial.seed == 0:
            series.setdefault((trial.size, trial.variant), []).append(trial)
    ends = [end for group in series.values() for end in (min(group, key=lambda t: t.rho), max(group, key=lambda t: t.rho))]
    return list({trial.id: trial for trial in ends}.values())


def _check_text(corpus: "Corpus", trials: list["TrialConfig"]) -> None:
    """UserError when the text does not fill a sequence; a note when it is read more than once."""
    from engram.corpus.dataset import TrainBatches, validation_windows

    for trial in {(t.train.seq_len, t.train.val_tokens): t for t in trials}.values():
        TrainBatches(corpus.train, trial.train.seq_len, trial.train.batch_size, trial.seed)
        validation_windows(corpus, trial.train.seq_len, trial.train.val_tokens)
    for trial in {(t.size, t.budget_flops): t for t in trials}.values():
        epochs = trial.train.tokens / len(corpus.train)
        if epochs > 1:
            console.note(
                f"size {trial.size} at {trial.budget_flops:.3g} FLOPs reads the {len(corpus.train):,} training tokens {epochs:.1f} times"
            )


def longest_first(trials: "Iterable[TrialConfig]") -> list["TrialConfig"]:
    """Larger budgets first, otherwise as they come: no worker is left alone with a long trial at the end."""
    return sorted(trials, key=lambda trial: -trial.budget_flops)


def _wanted(old: list[dict[str, Any]], trials: list["TrialConfig"]) -> list[dict[str, Any]]:
    """The trials that the sweep's table should have: those asked for before and those asked for now."""
    columns = ("size", "budget_flops", "variant", "rho", "seed")
    new = [{"trial_id": trial.id, **{name: getattr(trial, name) for name in columns}} for trial in trials]
    return list({entry["trial_id"]: entry for entry in [*old, *new]}.values())


def _train(
    store: "Store",
    spec: "SweepSpec",
    corpus: "Corpus",
    trials: list["TrialConfig"],
    resources: "Resources",
    checkpoint_s: float,
    tables: "TablePlacement | None",
    on_event: "Callable[[Event], None] | None",
) -> None:
    from engram.memory.placement.settings import TablePlacement
    from engramctl import origin
    from engramctl.display import SweepDisplay
    from engramctl.rows import SweepContext
    from engramctl.running import Process, RunningTrials
    from engramctl.schedule import run_trials, trial_resources
    from engramctl.worker import WorkerSettings

    finished = store.finished_ids()
    left = longest_first([trial for trial in trials if trial.id not in finished])
    wanted = trial_resources(resources)
    settings = WorkerSettings(
        results=store.results,
        corpus_folder=corpus.folder,
        context=SweepContext(store.sweep, spec.corpus.source, origin.git_sha()),
        device=resources.device,
        threads=int(wanted["cpu"]),
        report_s=_REPORT_S,
        checkpoint_s=checkpoint_s,
        driver=Process.this(),
        devices=resources.devices,
        resources=wanted,
        tables=tables or TablePlacement(),
    )
    try:
        with RunningTrials(store) as running, SweepDisplay(left, len(trials) - len(left)) as display:

            def tell(event: "Event") -> None:
                running.on_event(event)
                display.on_event(event)
                if on_event is not None:
                    on_event(event)

            run_trials(left, settings, resources, tell)
    except KeyboardInterrupt:
        console.note("stopped; finished trials are kept, the same command continues the others from their last checkpoint")
        raise typer.Exit(130) from None


def _report(store: "Store", trials: list["TrialConfig"], started: float, as_json: bool) -> None:
    """Say what the sweep has come to; exit code 1 when trials of it failed."""
    table = store.read_trials()
    table = table[table["trial_id"].isin([trial.id for trial in trials])]
    counts = table["status"].value_counts().to_dict()
    missing = len(trials) - len(table)
    if as_json:
        columns = ["trial_id", "size", "budget_flops", "variant", "rho", "seed", "status", "val_loss"]
        rows = table[columns].astype(object).where(table[columns].notna(), None).to_dict("records")
        console.print_json({"sweep": store.sweep, "folder": str(store.folder), "trials": rows, "missing": missing})
    parts = [f"{count} {status}" for status, count in counts.items()] + ([f"{missing} missing"] if missing else [])
    console.note(f"{store.sweep}: {', '.join(parts)} in {console.duration(time.monotonic() - started)}; results in {store.folder}")
    for _, row in table[table["status"] != "finished"].iterrows():
        last = str(row["error"]).strip().splitlines()[-1]
        console.note(f"  {row['status']}: {row['size']} rho {row['rho']:g} seed {row['seed']}: {last}")
    for _, row in table[table["starved_experts"] > 0].iterrows():
        starved = f"{row['starved_experts']:.0f} of {row['n_layers'] * row['n_routed_experts']} experts got no token in the last steps"
        console.note(f"  routing has collapsed: {row['size']} rho {row['rho']:g} seed {row['seed']}: {starved}")
    shown = results_options.DEFAULT_RESULTS if store.results == results_options.DEFAULT_RESULTS.absolute() else store.results
    console.note(f"next: {results_options.command('plot', store.sweep, shown)}")
    if counts.get("failed") or missing:
        raise typer.Exit(1)
