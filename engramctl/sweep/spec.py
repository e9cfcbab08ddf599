"""The declared experiment: the contents of a sweep file, validated."""

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from engram.config.errors import explain
from engram.corpus.sources import CorpusSpec
from engram.frozen import FrozenConfig
from engram.memory.designs.registry import NONE
from engram.scaling.ladder import LADDER, size
from engram.scaling.presets import PRESETS
from engram.scaling.recipe import DEFAULT_RECIPE, RECIPES
from engramctl.sweep.axes import OWN_POINTS, AxisValues, Variant, combinations, normalised
from engramctl.sweep.limits import MAX_SLOTS, MAX_TRIALS, NEAREST_RHOS
from engramctl.sweep.models import memory_design, override_group, sized_models, train_config
from engramctl.sweep.overrides import lay_over
from engramctl.sweep.units import parse_bytes, parse_duration, parse_flops, parse_per_parameter

_FORBIDDEN_IN_TRAIN = {"steps"}
_DECIDED_BY_RHO = {"table_sizes"}
_NOT_FIXED = {"question", "sizes", "rhos", "slots", "axes", "variants", "seeds", "budgets"}


class SweepSpec(FrozenConfig):
    """A declared experiment: the contents of a sweep file, with the command line's overrides."""

    question: str
    corpus: CorpusSpec = CorpusSpec(source="python")
    sizes: tuple[str, ...] = Field(min_length=1)
    rhos: tuple[float, ...] = ()
    slots: tuple[int, ...] = ()
    """Rows of all tables together, added to a fixed backbone (paper, 3.2); instead of rhos."""
    axes: dict[str, AxisValues] = Field(default_factory=dict)
    """Fields or named variants (`engramctl.sweep.axes`)."""
    variants: tuple[str, ...] = ()
    """Names of the variants to run; empty: all."""
    equal_across_variants: bool = True
    """Whether P_total and P_active must agree across variants, as they must across rho."""
    seeds: int = Field(default=1, ge=1)
    budgets: tuple[str, ...] = Field(min_length=1)
    """FLOPs of each trial (1e13), tokens for each active parameter (20tpp), or a wall time for the sweep (20m)."""
    recipe: str = DEFAULT_RECIPE.name
    """How each size is trained where `train` says nothing else (`engram.scaling.recipe`)."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the ladder's ModelConfig, nested."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Overrides of TrainConfig."""
    _asked_by: tuple[str, ...] = PrivateAttr(())

    @field_validator("sizes")
    @classmethod
    def _known_sizes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in PRESETS:
                raise ValueError(
                    f"{name} is a model of the paper: `engramctl plan --size {name}` counts it; sweeps take {', '.join(LADDER)}"
                )
            size(name)
        return tuple(dict.fromkeys(names))

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, name: str) -> str:
        if name not in RECIPES:
            raise ValueError(f"{name!r} is not allowed: {' or '.join(RECIPES)} is expected")
        return name

    @field_validator("rhos")
    @classmethod
    def _in_range(cls, rhos: tuple[float, ...]) -> tuple[float, ...]:
        for rho in rhos:
            if not 0 <= rho <= 1:
                raise ValueError(f"rho is {rho:g}; it must be between 0 (all memory) and 1 (all experts)")
        found = tuple(sorted({rho + 0.0 for rho in rhos}))  # -0.0 is 0.0
        for low, high in itertools.pairwise(found):
            if high - low < NEAREST_RHOS:
                raise ValueError(f"rhos {low!r} and {high!r} are closer than {NEAREST_RHOS:g}; one of the two is enough")
        return found

    @field_validator("slots", mode="before")
    @classmethod
    def _whole_numbers(cls, slots: Any) -> Any:
        return [_whole(s) for s in slots] if isinstance(slots, list | tuple) else slots

    @field_validator("slots")
    @classmethod
    def _not_negative(cls, slots: tuple[int, ...]) -> tuple[int, ...]:
        if slots and min(slots) < 0:
            raise ValueError(f"slots are {min(slots)}; 0 (no memory) or more are allowed")
        if slots and max(slots) > MAX_SLOTS:
            raise ValueError(f"slots are {max(slots):.3g}; at most {MAX_SLOTS:,} are allowed")
        return tuple(sorted(set(slots)))

    @field_validator("axes", mode="before")
    @classmethod
    def _labelled(cls, axes: Any) -> Any:
        return normalised(axes or {})

    @field_validator("budgets", mode="before")
    @classmethod
    def _as_text(cls, budgets: Any) -> Any:
        return [str(budget) for budget in budgets] if isinstance(budgets, list | tuple) else budgets

    @field_validator("budgets")
    @classmethod
    def _known_units(cls, budgets: tuple[str, ...]) -> tuple[str, ...]:
        for budget in budgets:
            if wall_seconds(budget) is None:
                declared_budget(budget)
            elif len(budgets) > 1:
                raise ValueError(f"budget {budget} is a wall time; it must stand alone, several budgets are FLOPs such as 1e13, or 20tpp")
        by_value: dict[Any, str] = {}  # 1e13 and 10000000000000 are one budget
        for budget in budgets:
            by_value.setdefault(wall_seconds(budget) or declared_budget(budget), budget)
        return tuple(by_value.values())

    @field_validator("corpus", mode="before")
    @classmethod
    def _bytes_with_unit(cls, corpus: Any) -> Any:
        if isinstance(corpus, dict) and isinstance(corpus.get("max_bytes"), str):
            return corpus | {"max_bytes": parse_bytes(corpus["max_bytes"])}
        return corpus

    @model_validator(mode="after")
    def _overrides_fit(self) -> Self:
        if bool(self.rhos) == bool(self.slots):
            found = "both rhos and slots are given" if self.rhos else "neither rhos nor slots are given"
            raise ValueError(f"rhos: {found}; a sweep varies one of the two")
        self._check_number()
        if self.axes:
            self._check_variants()
            return self
        if self.variants:
            raise ValueError(f"variants: there is no {self.variants[0]!r}; this sweep has no axes")
        for name in _FORBIDDEN_IN_TRAIN & self.train.keys():
            raise ValueError(f"train.{name} can't be set: the budget decides it")
        for name in _DECIDED_BY_RHO & override_group(self.model, "model", "memory").keys():
            raise ValueError(f"model.memory.{name} can't be set: rho decides it; max_ngram sets the largest order")
        none = memory_design(self) == NONE
        if none and not (self.rhos == (1.0,) or self.slots == (0,)):
            field, only = ("slots", 0) if self.slots else ("rhos", 1)
            raise ValueError(f"{field}: with model.memory.design none there is no memory to give parameters to; {field} must be [{only}]")
        probes: list[float] = [1.0] if none else [1.0, 0.5]
        for name in self.sizes:
            if self.slots:
                sized_models(self, size(name), self.slots, self.corpus.vocab_size)
            else:
                sized_models(self, size(name), probes, self.corpus.vocab_size)
            train_config(self, size(name), steps=1)
        return self

    def _check_number(self) -> None:
        """ValueError when there are more trials than anybody can mean, before any of them is made."""
        points = 0
        for variant in combinations(self.axes):
            if not self.variants or variant.name in self.variants:
                own = [variant.changes[name] for name in OWN_POINTS if isinstance(variant.changes.get(name), list | tuple)]
                points += len(own[0] if own else self.slots or self.rhos)
        n = len(self.sizes) * points * len(self.budgets) * self.seeds
        if n > MAX_TRIALS:
            most = f"at most {MAX_TRIALS:,} are allowed in one sweep"
            raise ValueError(f"seeds: {self.seeds:,} seeds of {n // self.seeds:,} points make {n:,} trials; {most}")

    def _check_variants(self) -> None:
        known = combinations(self.axes)
        names = [variant.name for variant in known]
        name, n = Counter(names).most_common(1)[0]
        if n > 1:
            raise ValueError(f"axes: {n} combinations of their labels read {name!r}; name them so that they can be told apart")
        for name in self.variants:
            if name not in names:
                raise ValueError(f"variants: there is no {name!r}; there are {', '.join(names)}")
        for variant in known:
            try:
                variant_spec(self, variant)
            except ValidationError as problem:
                raise ValueError(f"axes, variant {variant.name}: {explain(problem)}") from None

    @property
    def asked_by(self) -> tuple[str, ...]:
        """The words of the command that asked for the sweep; no part of the experiment."""
        return self._asked_by

    def asked_with(self, words: tuple[str, ...]) -> Self:
        """The same sweep, asked for by a command."""
        same = self.model_copy()
        same._asked_by = words
        return same

    @property
    def fixed(self) -> dict[str, Any]:
        """What can't change when a sweep continues: everything but the question and what may grow."""
        # Sweeps that were begun before there were several recipes know of none.
        return self.model_dump(mode="json", exclude=_NOT_FIXED | ({"recipe"} if self.recipe == DEFAULT_RECIPE.name else set()))


def variant_spec(spec: SweepSpec, variant: Variant) -> SweepSpec:
    """The sweep of a single variant: without axes, with the variant's changes applied. ValidationError when they don't fit."""
    values = spec.model_dump(exclude={"axes", "variants"})
    return SweepSpec.model_validate(lay_over(values, variant.changes))


def sweep_variants(spec: SweepSpec) -> list[tuple[Variant, SweepSpec]]:
    """The variants that a sweep runs, each with its `variant_spec`."""
    wanted = [v for v in combinations(spec.axes) if not spec.variants or v.name in spec.variants]
    return [(variant, variant_spec(spec, variant) if spec.axes else spec) for variant in wanted]


def _whole(value: Any) -> Any:
    """A whole number as an int, also where YAML made it text (1e5) or a float (1.0e+5); anything else is left for validation to refuse."""
    try:
        return int(float(value)) if float(value).is_integer() else value
    except (TypeError, ValueError, OverflowError):
        return value


def wall_seconds(budget: str) -> float | None:
    """Seconds if the budget is a wall time (20m), None if it is a number of FLOPs."""
    return parse_duration(budget) if budget.strip()[-1:].lower() in ("s", "m", "h", "d") else None


@dataclass(frozen=True)
class PerParameter:
    """A budget of so many tokens for each active parameter: every size has FLOPs of its own."""

    tokens: float

    def flops(self, p_active: int) -> float:
        """FLOPs of a trial in the paper's count, to three digits."""
        return float(f"{6 * p_active**2 * self.tokens:.3g}")


Budget = float | PerParameter
"""FLOPs for each trial of every size, or tokens for each parameter."""


def declared_budget(budget: str) -> Budget:
    """A budget that is no wall time; UserError for what is none at all."""
    tokens = parse_per_parameter(budget)
    return parse_flops(budget) if tokens is None else PerParameter(tokens)


def budget_key(spec: SweepSpec, budget: str) -> str:
    """Key under which a sweep keeps the FLOPs of a wall time: other sizes get FLOPs of their own, other rhos and seeds share them."""
    return f"{budget} for {', '.join(spec.sizes)}"
