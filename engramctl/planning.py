"""What a sweep would train and cost, without training."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from engram.accounting import training_memory_bytes
from engram.allocation import spread
from engram.config import TrialConfig
from engram.designs.registry import NONE
from engram.recipe import DEFAULT_OPTIMIZER
from engram.training.machine import resolve_device, resolve_precision
from engram.training.speed import Speed, guess_flops_per_s
from engram.training.validation import sequences_at_once
from engramctl import console
from engramctl.budget import fit_wall_time, makespan
from engramctl.expansion import expand
from engramctl.rows import planned_columns
from engramctl.schedule import local_workers
from engramctl.store import Store
from engramctl.sweepfile import DEFAULT_ATTENTION, DEFAULT_DESIGN, SweepSpec, budget_key, wall_seconds

_UNKNOWN = "unknown"
_VALIDATION_SHARE = 1 / 3
"""A validation token takes about a third of a training token's time: forward only."""


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep as rows with Parquet column names, `estimated_s`, `memory_bytes` and `done` added."""

    rows: list[dict[str, Any]]
    estimated_s: float
    workers: int
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        return {"trials": self.rows, "estimated_s": self.estimated_s, "workers": self.workers}

    def tables(self) -> Iterator[Table]:
        """One table for each size, budget and number of tokens; seeds are alike and share a line."""
        keys = dict.fromkeys((row["size"], row["budget_flops"], row["tokens"]) for row in self.rows)
        for size, budget, tokens in keys:
            block = [row for row in self.rows if (row["size"], row["budget_flops"], row["tokens"]) == (size, budget, tokens)]
            first = [row for row in block if row["seed"] == block[0]["seed"]]
            seeds = len({row["seed"] for row in block})
            title = (
                f"{size}{_choices(block)}: {budget:.3g} FLOPs, {console.human(tokens)} tokens = {first[0]['steps']} steps"
                f" x {first[0]['batch_size']} x {first[0]['seq_len']}, {seeds} seed{'s' if seeds > 1 else ''}"
            )
            variants = any(row["variant"] for row in block)
            columns = ("rho", "experts", "shared", "slots", "P_total", "P_active", "time", "memory", "done")
            cells = []
            for row in first:
                same = [other for other in block if (other["variant"], other["rho"]) == (row["variant"], row["rho"])]
                cells.append(
                    (
                        *([row["variant"]] if variants else []),
                        f"{row['rho']:.3g}",
                        row["n_routed_experts"],
                        row["shared_width"],
                        console.human(row["n_slots"]),
                        console.human(row["p_total"], digits=4),
                        console.human(row["p_active"], digits=4),
                        "~" + console.duration(row["estimated_s"]),
                        console.human(row["memory_bytes"]) + "B",
                        f"{sum(other['done'] for other in same)}/{len(same)}",
                    )
                )
            yield console.table(("variant", *columns) if variants else columns, cells, left=int(variants), title=title)


def _choices(rows: list[dict[str, Any]]) -> str:
    """What of design, branches, attention and optimiser is not the default, in brackets."""
    if any(row["variant"] for row in rows):
        return ""  # the variants say it
    first, designs = rows[0], {row["memory_design"] for row in rows} - {NONE, DEFAULT_DESIGN}
    chosen = [*sorted(designs)]
    chosen += [f"{first['branches']} branches"] if first["branches"] > 1 else []
    chosen += [first["attention"]] if first["attention"] != DEFAULT_ATTENTION else []
    chosen += [first["optimizer"]] if first["optimizer"] != DEFAULT_OPTIMIZER else []
    return f" ({', '.join(chosen)})" if chosen else ""


def planned_rows(spec: SweepSpec, store: Store, workers: int | None, device_name: str) -> Plan:
    """Plan a sweep; speeds come from its finished trials of the same size, else from a quarter second of matrix products."""
    device = resolve_device(device_name)
    workers = workers or local_workers(device.type)
    manifest = store.read_manifest() or {}
    same = manifest.get("fixed") == spec.fixed  # else this would be another experiment, which `sweep` refuses to put there
    pinned = manifest.get("corpus", {}) if same else {}
    vocab_size = pinned.get("vocab_size") or _vocab_size(spec)
    fingerprints = pinned.get("fingerprint", _UNKNOWN), pinned.get("tokenizer_fingerprint", _UNKNOWN)
    notes = []
    if manifest and not same:
        notes.append(f"{store.folder} holds another experiment: give this one a folder of its own with --name")

    known = store.read_trials() if store.trials.is_dir() else None
    flops_per_s: list[float] = []

    def speed(trial: TrialConfig) -> Speed:
        tokens_per_s = None
        if known is not None and len(known):
            measured = known.loc[(known["size"] == trial.size) & (known["status"] == "finished"), "tokens_per_s"]
            tokens_per_s = float(measured.median()) if len(measured) else None
        if tokens_per_s is None:
            if not flops_per_s:
                flops_per_s.append(guess_flops_per_s(device, resolve_precision(trial.train.precision, device)))
                notes.append("times are rough: nothing of this size has run here yet")
            columns = planned_columns(trial)
            tokens_per_s = flops_per_s[0] / (columns["model_flops"] / columns["tokens"])
        return Speed(1.0, trial.train.tokens_per_step / tokens_per_s, _VALIDATION_SHARE * trial.train.val_tokens / tokens_per_s)

    budgets = []
    for text in spec.budgets:
        seconds = wall_seconds(text)
        if seconds is None:
            budgets.append(float(text))
        elif same and (key := budget_key(spec, text)) in manifest.get("budgets", {}):
            budgets.append(float(manifest["budgets"][key]))
        else:
            probes = expand(spec, [1e30], vocab_size, *fingerprints)
            slowest = {name: max((speed(t) for t in probes if t.size == name), key=lambda s: s.step_s) for name in spec.sizes}
            budgets.append(fit_wall_time(seconds, probes, slowest, workers))
            notes.append(f"budget {text} is about {budgets[-1]:.2g} FLOPs a trial here; the sweep times a few steps and decides")

    finished = store.finished_ids() if store.trials.is_dir() else set()
    trials = expand(spec, budgets, vocab_size, *fingerprints)
    rows = []
    for trial in trials:
        rows.append(
            planned_columns(trial)
            | {
                "estimated_s": speed(trial).trial_s(trial.train.steps, trial.train.n_validations),
                "memory_bytes": training_memory_bytes(trial.model, sequences_at_once(trial.train) * trial.train.seq_len),
                "done": trial.id in finished,
            }
        )
    total = makespan([row["estimated_s"] for row in rows if not row["done"]], workers)
    left = sum(not row["done"] for row in rows)
    notes.append(_spread_note(spec, rows))
    notes.append(f"{left} of {len(rows)} trials to train, about {console.duration(total)} with {workers} at a time")
    return Plan(rows, total, workers, notes)


def _spread_note(spec: SweepSpec, rows: list[dict[str, Any]]) -> str:
    """How equal the trials are that will be compared."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["size"],) if spec.equal_across_variants else (row["size"], row["variant"]), []).append(row)
    total, active = (100 * max(spread([row[name] for row in group]) for group in groups.values()) for name in ("p_total", "p_active"))
    if spec.slots:
        return f"P_active differs by {active:.3f} % over slots (0.5 % allowed); P_total grows with them"
    over = "rho and variants" if spec.axes and spec.equal_across_variants else "rho"
    return f"P_total differs by {total:.3f} % over {over}, P_active by {active:.3f} % (0.5 % allowed)"


def _vocab_size(spec: SweepSpec) -> int:
    """Tokens to expect before the corpus is there: those of the tokenizer that was named, or those it will be trained to."""
    if spec.corpus.tokenizer is None:
        return spec.corpus.vocab_size
    from engram.tokenizer.bpe import load_tokenizer, vocabulary_size

    return vocabulary_size(load_tokenizer(spec.corpus.tokenizer))
