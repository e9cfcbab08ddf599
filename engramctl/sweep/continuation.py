"""Continuing a sweep: whether a folder holds the same experiment, and what its manifest becomes."""

from collections.abc import Iterable
from typing import Any

from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engramctl.results.manifest import DeclaredSweep, Manifest, PinnedCorpus, WantedTrial
from engramctl.results.store import Store
from engramctl.sweep.spec import Budget, SweepSpec, budget_key, declared_budget, wall_seconds


def check_same_sweep(store: Store, spec: SweepSpec, manifest: Manifest) -> None:
    """UserError when the folder holds another experiment: only the axes of a sweep may grow."""
    if manifest.fixed is None:
        return
    kept = {axis: labels for axis, labels in manifest.sweep.axes.items() if axis in spec.axes}
    before = {axis: {label: labels[label] for label in labels.keys() & spec.axes[axis].keys()} for axis, labels in kept.items()}
    after = {axis: {label: spec.axes[axis][label] for label in labels} for axis, labels in before.items()}
    for path, was, now in [*_differences(manifest.fixed, spec.fixed, ""), *_differences(before, after, "axes")]:
        raise UserError(
            f"{store.folder} was made with {path} = {was!r}, now it is {now!r}; choose another folder with --name, or take the change back"
        )


def _differences(was: Any, now: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        keys = sorted(was.keys() | now.keys())
        return [d for key in keys for d in _differences(was.get(key), now.get(key), f"{path}.{key}" if path else key)]
    return [] if was == now else [(path, was, now)]


def updated_manifest(old: Manifest, spec: SweepSpec, corpus: Corpus) -> Manifest:
    """The manifest of this run, with the budgets and trials of earlier ones."""
    pinned = PinnedCorpus(
        folder=corpus.folder.name,
        fingerprint=corpus.fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
        vocab_size=corpus.vocab_size,
    )
    declared = DeclaredSweep.model_validate(spec.model_dump(mode="json"))
    trials, commands = old.trials or (), old.commands
    if spec.asked_by and commands[-1:] != (spec.asked_by,):
        commands = (*commands, spec.asked_by)
    return Manifest(sweep=declared, fixed=spec.fixed, corpus=pinned, budgets=old.budgets, trials=trials, commands=commands)


def with_trials(manifest: Manifest, trials: Iterable[TrialConfig]) -> Manifest:
    """The manifest with the trials asked for now, after those asked for before."""
    asked = {"asked_by": len(manifest.commands) - 1} if manifest.commands else {}
    new = [
        WantedTrial(
            trial_id=trial.id,
            size=trial.size,
            budget_flops=trial.budget_flops,
            variant=trial.variant,
            rho=trial.rho,
            seed=trial.seed,
            **asked,
        )
        for trial in trials
    ]
    entries = {entry.trial_id: entry for entry in [*(manifest.trials or ()), *new]}
    return manifest.model_copy(update={"trials": tuple(entries.values())})


def known_budget(spec: SweepSpec, text: str, manifest: Manifest) -> Budget | None:
    """A budget; None for a wall time that has not been turned into FLOPs yet."""
    return declared_budget(text) if wall_seconds(text) is None else manifest.budgets.get(budget_key(spec, text))
