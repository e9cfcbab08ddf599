"""`sweep.json`: what a sweep is, kept with its results.

Unlike a sweep file it may be read years later by another version, so only its shape is checked, not whether the sweep could still be run.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from engram.config.errors import explain
from engram.errors import UserError
from engram.files import write_atomically
from engram.foreign_files import read_json
from engramctl.results.parquet import require_version
from engramctl.results.schema.columns import SCHEMA_VERSION
from engramctl.results.trial_ids import TRIAL_ID

_MAX_VARIANTS = 100_000
"""Far more than a sweep may have (`sweep.limits`): what was written once stays readable."""


class _Kept(BaseModel):
    """Fields unknown to this version are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class DeclaredSweep(_Kept):
    """The sweep's declaration (`sweep.spec.SweepSpec`) as of its last run, with the command line's overrides."""

    question: str = ""
    corpus: dict[str, Any] = {}
    sizes: tuple[str, ...] = ()
    rhos: tuple[float, ...] = ()
    slots: tuple[int, ...] = ()
    axes: dict[str, dict[str, dict[str, Any]]] = {}
    """Axis -> label -> changes by dotted path."""
    variants: tuple[str, ...] = ()

    @field_validator("axes")
    @classmethod
    def _can_be_listed(cls, axes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if (n := math.prod(map(len, axes.values()))) > _MAX_VARIANTS:
            raise ValueError(f"their labels make {n:,} combinations; at most {_MAX_VARIANTS:,} are allowed")
        return axes

    @property
    def variant_axes(self) -> dict[str, str]:
        """The column `axes` of each variant, JSON, by the variant's name."""
        choices = itertools.product(*([(axis, label) for label in labels] for axis, labels in self.axes.items()))
        return {", ".join(label for _, label in labels): json.dumps(dict(labels)) for labels in choices}


class PinnedCorpus(_Kept):
    """The prepared text that the sweep started with."""

    folder: str
    """Its name below `corpora/` in the cache."""
    fingerprint: str
    tokenizer_fingerprint: str
    vocab_size: int

    @field_validator("folder")
    @classmethod
    def _is_a_name(cls, folder: str) -> str:
        if folder != Path(folder).name or "\0" in folder:
            raise ValueError(f"{folder!r} is not allowed: the name of a folder, without slashes, is expected")
        return folder


class WantedTrial(_Kept):
    """A trial that the sweep's table should contain (columns `trial_table.IDENTITY`)."""

    trial_id: str
    size: str
    budget_flops: float
    variant: str
    rho: float
    seed: int
    asked_by: int | None = None
    """Which of the manifest's `commands` asked for it last."""

    @model_validator(mode="after")
    def _id_is_one(self) -> Self:
        if not TRIAL_ID.fullmatch(self.trial_id):
            raise ValueError(f"trial_id: {self.trial_id!r} is not allowed: 12 hexadecimal digits are expected")
        return self

    @field_validator("size", "variant")
    @classmethod
    def _is_text(cls, name: str) -> str:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name!a} is not allowed: it has half a character") from None
        return name


class Manifest(_Kept):
    """What a sweep is: its declaration, its text, the FLOPs that its wall times came to, and the trials that were asked for."""

    sweep: DeclaredSweep = DeclaredSweep()
    fixed: dict[str, Any] | None = None
    """What must not change when the sweep continues (`sweep.spec.SweepSpec.fixed`)."""
    corpus: PinnedCorpus | None = None
    budgets: dict[str, float] = {}
    """FLOPs per trial by wall time and sizes (`sweep.spec.budget_key`)."""
    trials: tuple[WantedTrial, ...] | None = None
    """In the order in which they were asked for; None: every row is wanted."""
    commands: tuple[tuple[str, ...], ...] = ()
    """The words of every command that asked for trials, without --results."""

    @property
    def is_over_slots(self) -> bool:
        """Whether the sweep varies memory slots on a fixed backbone instead of rho."""
        return bool(self.sweep.slots)

    def positions(self) -> dict[str, int]:
        """The position of each trial, by its id, in the order of the sweep's author; empty without a list of trials."""
        return {trial.trial_id: i for i, trial in enumerate(self.trials or ())}

    def commands_for(self, ids: set[str]) -> list[tuple[str, ...]]:
        """The words of the commands that asked for some trials; none if one of these isn't known."""
        asked = sorted({-1 if t.asked_by is None else t.asked_by for t in self.trials or () if t.trial_id in ids})
        known = all(0 <= i < len(self.commands) for i in asked)
        return list(dict.fromkeys(self.commands[i] for i in asked)) if known else []

    def without(self, ids: set[str]) -> Self:
        """The manifest without some of its trials."""
        return self.model_copy(update={"trials": tuple(trial for trial in self.trials or () if trial.trial_id not in ids)})


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest, with the schema version added. OSError when the disk refuses."""
    content = manifest.model_dump(mode="json", exclude_unset=True, exclude={"schema_version"})
    text = json.dumps({**content, "schema_version": SCHEMA_VERSION}, indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_manifest(path: Path) -> Manifest | None:
    """The manifest, or None if there is none; UserError in one line when it is damaged, of another shape or of another version."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{path} is not JSON; delete it and run the sweep again, finished trials are kept") from None
    except OSError as problem:
        raise UserError(f"{path} can't be read: {problem.strerror}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is a JSON {type(content).__name__}, an object is expected")
    require_version(path, content.get("schema_version"))
    try:
        return Manifest.model_validate(content)
    except ValidationError as problem:
        raise UserError(f"{path}: {explain(problem)}") from None
