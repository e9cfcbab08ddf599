"""What a sweep would train and cost, without training anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engram.cache import default_cache
from engram.config.trial import TrialConfig
from engram.memory.placement.settings import TablePlacement
from engram.scaling.accounting import training_memory_bytes
from engram.scaling.allocation import spread
from engram.training.machine import resolve_device, resolve_precision
from engram.training.speed import Speed, guess_flops_per_s
from engram.training.validation import sequences_at_once
from engramctl.cluster.session import local_workers
from engramctl.present.format import counted, duration
from engramctl.results.rows.trials import planned_columns
from engramctl.results.store import Store
from engramctl.results.trial_table import finished
from engramctl.sweep.budget import fit_wall_time, makespan
from engramctl.sweep.build import expand
from engramctl.sweep.side_by_side import Gpus, known_choice
from engramctl.sweep.spec import Budget, SweepSpec, budget_key, declared_budget, wall_seconds

_UNKNOWN = "unknown"
_VALIDATION_SHARE = 1 / 3
"""A validation token takes about a third of a training token's time: there is no backward pass."""


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep as rows of Parquet columns, with `estimated_s`, `memory_bytes` and `done` added."""

    rows: list[dict[str, Any]]
    estimated_s: float
    workers: int
    notes: list[str]

    @property
    def n_left(self) -> int:
        """Trials that are not trained yet."""
        return sum(not row["done"] for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        return {"trials": self.rows, "estimated_s": self.estimated_s, "workers": self.workers}


def plan_sweep(spec: SweepSpec, store: Store, workers: int | None, device_name: str) -> Plan:
    """Plan a sweep. Speeds are those of its finished trials of the same size, else guessed from a quarter second of matrix products."""
    device = resolve_device(device_name)
    manifest = store.read_manifest()
    # Otherwise the folder holds another experiment, and `sweep` would refuse to add this one.
    same = manifest is not None and manifest.fixed == spec.fixed
    pinned = manifest.corpus if manifest is not None and same else None
    vocab_size = pinned.vocab_size if pinned else _vocab_size(spec)
    fingerprints = (pinned.fingerprint, pinned.tokenizer_fingerprint) if pinned else (_UNKNOWN, _UNKNOWN)
    known_budgets = manifest.budgets if manifest is not None and same else {}
    notes = []
    if manifest is not None and not same:
        notes.append(f"{store.folder} holds another experiment: give this one a folder of its own with --name")

    known = store.read_trials() if store.trials.is_dir() else None
    flops_per_s: list[float] = []

    def speed(trial: TrialConfig) -> Speed:
        tokens_per_s = None
        if known is not None and len(known):
            measured = finished(known).loc[known["size"] == trial.size, "tokens_per_s"]
            tokens_per_s = float(measured.median()) if len(measured) else None
        if tokens_per_s is None:
            if not flops_per_s:
                flops_per_s.append(guess_flops_per_s(device, resolve_precision(trial.train.precision, device)))
                notes.append("times are rough: nothing of this size has run here yet")
            columns = planned_columns(trial)
            tokens_per_s = flops_per_s[0] / (columns["model_flops"] / columns["tokens"])
        return Speed(1.0, trial.train.tokens_per_step / tokens_per_s, _VALIDATION_SHARE * trial.train.val_tokens / tokens_per_s)

    def at_once(trials: Sequence[TrialConfig]) -> int:
        """Trials at a time: as asked for, or as `sweep` would choose, as far as that is known without measuring."""
        if workers is not None or device.type == "cpu":
            return workers or local_workers(device.type)
        choice = known_choice(trials, TablePlacement(), Gpus.here(device), default_cache())
        if choice is None:
            notes.append("`sweep` measures how many trials at a time pay on this GPU; times are for one")
            return local_workers(device.type)
        notes.append(choice.note)
        return choice.workers

    budgets: list[Budget] = []
    for text in spec.budgets:
        seconds = wall_seconds(text)
        if seconds is None:
            budgets.append(declared_budget(text))
        elif (key := budget_key(spec, text)) in known_budgets:
            budgets.append(known_budgets[key])
        else:
            probes = expand(spec, [1e30], vocab_size, *fingerprints)
            slowest = {name: max((speed(t) for t in probes if t.size == name), key=lambda s: s.step_s) for name in spec.sizes}
            flops = fit_wall_time(seconds, probes, slowest, at_once(probes))
            budgets.append(flops)
            notes.append(f"budget {text} is about {flops:.2g} FLOPs a trial here; the sweep times a few steps and decides")

    done = store.finished_ids() if store.trials.is_dir() else set()
    trials = expand(spec, budgets, vocab_size, *fingerprints)
    rows = []
    for trial in trials:
        rows.append(
            planned_columns(trial)
            | {
                "estimated_s": speed(trial).trial_s(trial.train.steps, trial.train.n_validations),
                "memory_bytes": training_memory_bytes(trial.model, sequences_at_once(trial.train) * trial.train.seq_len),
                "done": trial.id in done,
            }
        )
    n_workers = at_once([trial for trial in trials if trial.id not in done])
    total = makespan([row["estimated_s"] for row in rows if not row["done"]], n_workers)
    notes.append(_spread_note(spec, rows))
    plan = Plan(rows, total, n_workers, notes)
    about = f", about {duration(total)} with {n_workers} at a time" if plan.n_left else ""
    notes.append(f"{plan.n_left} of {counted(len(rows), 'trial')} to train{about}")
    return plan


def _spread_note(spec: SweepSpec, rows: list[dict[str, Any]]) -> str:
    """How equal in parameters the trials are that will be compared."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["size"],) if spec.equal_across_variants else (row["size"], row["variant"]), []).append(row)
    total, active = (100 * max(spread([row[name] for row in group]) for group in groups.values()) for name in ("p_total", "p_active"))
    if spec.slots:
        return f"P_active differs by {active:.3f} % over slots (0.5 % allowed); P_total grows with them"
    over = "rho and variants" if spec.axes and spec.equal_across_variants else "rho"
    return f"P_total differs by {total:.3f} % over {over}, P_active by {active:.3f} % (0.5 % allowed)"


def _vocab_size(spec: SweepSpec) -> int:
    """The vocabulary to expect before the corpus is prepared: that of the named tokenizer, or the size that one will be trained to."""
    if spec.corpus.tokenizer is None:
        return spec.corpus.vocab_size
    from engram.tokenizer.bpe import load_tokenizer, vocabulary_size

    return vocabulary_size(load_tokenizer(spec.corpus.tokenizer))
