"""Sweep files: read, validate, override from the command line, expand into trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from engram.allocation import allocate, baseline, memory_template, with_slots
from engram.config import ModelConfig
from engram.corpus.sources import CorpusSpec
from engram.designs.base import NO_ROWS
from engram.designs.registry import NONE
from engram.errors import UserError
from engram.frozen import FrozenConfig
from engram.ladder import LADDER, Size, size
from engram.presets import PRESETS
from engram.recipe import DEFAULT_OPTIMIZER, train_defaults
from engram.training_config import TrainConfig
from engramctl.axes import AxisValues, Variant, combinations, normalised
from engramctl.units import parse_bytes, parse_duration, parse_flops

_FORBIDDEN_IN_TRAIN = {"steps"}
_DECIDED_BY_RHO = {"table_sizes"}
_CHOICES = {"optimizer": "kind", "schedule": "kind", "attention": "kind", "memory": "design"}
"""Fields that hold one of several configs, and the field of theirs that chooses."""
_FREE = {"question", "sizes", "rhos", "slots", "axes", "variants", "seeds", "budgets"}
_LARGEST_NGRAM = 8
DEFAULT_DESIGN, DEFAULT_ATTENTION = "engram", "mha"


class SweepSpec(FrozenConfig):
    """A declared experiment: the contents of a sweep file with the command line's overrides."""

    question: str
    corpus: CorpusSpec = CorpusSpec(source="python")
    sizes: tuple[str, ...] = Field(min_length=1)
    rhos: tuple[float, ...] = ()
    slots: tuple[int, ...] = ()
    """Rows of all tables together, added to a fixed backbone (paper, 3.2), in place of rhos."""
    axes: dict[str, AxisValues] = Field(default_factory=dict)
    """Fields or named variants (engramctl.axes)."""
    variants: tuple[str, ...] = ()
    """Variants to run, by name; none given: all."""
    equal_across_variants: bool = True
    """Whether P_total and P_active must agree over the variants as they must over rho."""
    seeds: int = Field(default=1, ge=1)
    budgets: tuple[str, ...] = Field(min_length=1)
    model: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the ladder's ModelConfig, nested."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Overrides of TrainConfig."""

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

    @field_validator("rhos")
    @classmethod
    def _in_range(cls, rhos: tuple[float, ...]) -> tuple[float, ...]:
        for rho in rhos:
            if not 0 <= rho <= 1:
                raise ValueError(f"rho is {rho:g}; it must be between 0 (all memory) and 1 (all experts)")
        return tuple(sorted(set(rhos)))

    @field_validator("slots", mode="before")
    @classmethod
    def _whole_numbers(cls, slots: Any) -> Any:
        return [_whole(s) for s in slots] if isinstance(slots, list | tuple) else slots

    @field_validator("slots")
    @classmethod
    def _not_negative(cls, slots: tuple[int, ...]) -> tuple[int, ...]:
        if slots and min(slots) < 0:
            raise ValueError(f"slots are {min(slots)}; 0 (no memory) or more are allowed")
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
                parse_flops(budget)
            elif len(budgets) > 1:
                raise ValueError(f"budget {budget} is a wall time; it must stand alone, several budgets are FLOPs such as 1e13")
        return tuple(dict.fromkeys(budgets))

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
        if self.axes:
            self._check_variants()
            return self
        if self.variants:
            raise ValueError(f"variants: there is no {self.variants[0]!r}; this sweep has no axes")
        for name in _FORBIDDEN_IN_TRAIN & self.train.keys():
            raise ValueError(f"train.{name} can't be set: the budget decides it")
        for name in _DECIDED_BY_RHO & _group(self.model, "model", "memory").keys():
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

    def _check_variants(self) -> None:
        known = combinations(self.axes)
        names = [variant.name for variant in known]
        for name in self.variants:
            if name not in names:
                raise ValueError(f"variants: there is no {name!r}; there are {', '.join(names)}")
        for variant in known:
            try:
                variant_spec(self, variant)
            except ValidationError as problem:
                raise ValueError(f"axes, variant {variant.name}: {first_error(problem)}") from None

    @property
    def fixed(self) -> dict[str, Any]:
        """What can't change while a sweep goes on: everything but what may grow and the question."""
        return self.model_dump(mode="json", exclude=_FREE)


def variant_spec(spec: SweepSpec, variant: Variant) -> SweepSpec:
    """The sweep of one variant: its changes laid over, without axes. ValidationError when they don't fit."""
    values = spec.model_dump(exclude={"axes", "variants"})
    return SweepSpec.model_validate(deep_merge(_without_old_choices(values, variant.changes), variant.changes))


def sweep_variants(spec: SweepSpec) -> list[tuple[Variant, SweepSpec]]:
    """The variants that a sweep runs, each with its sweep."""
    wanted = [v for v in combinations(spec.axes) if not spec.variants or v.name in spec.variants]
    return [(variant, variant_spec(spec, variant) if spec.axes else spec) for variant in wanted]


def _whole(value: Any) -> Any:
    """1e5 is text in YAML and 1.0e+5 a float; what is no whole number is left for the validation to name."""
    try:
        return int(float(value)) if float(value).is_integer() else value
    except (TypeError, ValueError, OverflowError):
        return value


def wall_seconds(budget: str) -> float | None:
    """Seconds if the budget is a wall time (20m), None if it is a number of FLOPs."""
    return parse_duration(budget) if budget.strip()[-1:].lower() in ("s", "m", "h", "d") else None


def budget_key(spec: SweepSpec, budget: str) -> str:
    """Name under which a sweep keeps the FLOPs of a wall time: other sizes need other FLOPs, other rhos and seeds join the same."""
    return f"{budget} for {', '.join(spec.sizes)}"


def sweep_folders() -> list[Path]:
    """Where names are looked up: `sweeps/` here, then the ones that came with the program."""
    package = Path(__file__).resolve().parent
    return [Path("sweeps"), package / "_sweeps", package.parent / "sweeps"]


def find_sweep(name: str) -> Path:
    """The file of a sweep by name or path; UserError lists the names there are."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"sweep file {name} does not exist")
        return path
    known: dict[str, Path] = {}
    for folder in reversed(sweep_folders()):
        known |= {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise UserError(f"sweep '{name}' is unknown; there are {', '.join(sorted(known))}, or give the path of a .yaml file")
    return known[name]


def load_sweep(path: Path, overrides: Mapping[str, Any]) -> SweepSpec:
    """Read a sweep file and lay overrides over it; UserError names the file and the line or the field."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as problem:
        raise UserError(f"{path} is not UTF-8 (byte {problem.start})") from None
    except OSError as problem:
        raise UserError(f"{path} can't be read: {problem.strerror}") from None
    except yaml.MarkedYAMLError as problem:
        line = f", line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {problem.problem}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping with the keys {', '.join(SweepSpec.model_fields)}")
    try:
        spec = SweepSpec.model_validate(content)  # a mistake in the file is the file's, whatever the options say
    except ValidationError as problem:
        raise UserError(f"{path}: {first_error(problem)}") from None
    if not overrides:
        return spec
    try:
        return SweepSpec.model_validate(deep_merge(_without_old_choices(spec.model_dump(), overrides), overrides))
    except ValidationError as problem:
        raise UserError(first_error(problem)) from None


def first_error(problem: ValidationError) -> str:
    """The first validation error in a line: field path, what is allowed, and the value where the message lacks it."""
    error = problem.errors()[0]
    path = [str(part) for part in error["loc"]]
    # Below a choice, pydantic puts the name of what was chosen into the path; in the file there is no such level.
    path = [part for i, part in enumerate(path) if i == 0 or path[i - 1] not in _CHOICES]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "no such field"
    elif error["type"] == "missing":
        message = "this field is required"
    elif error["type"] == "union_tag_invalid":
        path.append(error["ctx"]["discriminator"].strip("'"))
        message = f"{error['ctx']['tag']!r} is not allowed: input should be {error['ctx']['expected_tags']}"
    elif error["type"] != "value_error":
        message = f"{error['input']!r} is not allowed: {message[:1].lower()}{message[1:]}"
    where = ".".join(path)
    return f"{where}: {message}" if where else message


def deep_merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `changes` laid over it."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _group(values: Mapping[str, Any], where: str, name: str) -> dict[str, Any]:
    """The overrides of one group of fields; UserError when something else than a mapping stands there."""
    found = values.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}.{name}: {found!r} is not allowed: fields of it are expected, such as {{kind: ...}} or {{design: ...}}")
    return found


def memory_design(spec: SweepSpec) -> str:
    """Name of the memory design of a sweep."""
    return str(_group(spec.model, "model", "memory").get("design", DEFAULT_DESIGN))


def _without_old_choices(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without the settings of designs and kinds that `overrides` chooses another one for: they would not fit it."""
    kept = dict(values)
    for name, old in values.items():
        new = overrides.get(name)
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            continue
        chooser = _CHOICES.get(name)
        if chooser in new and new[chooser] != old.get(chooser):
            kept[name] = {}
        else:
            kept[name] = _without_old_choices(old, new)
    return kept


def sized_models(spec: SweepSpec, size: Size, points: Sequence[float], vocab_size: int) -> dict[float, ModelConfig]:
    """The model of every rho, with equal P_total and P_active, or of every number of slots; with the sweep's overrides."""
    changes = {name: value for name, value in spec.model.items() if name != "memory"}
    attention = str(_group(changes, "model", "attention").get("kind", DEFAULT_ATTENTION))
    _group(changes, "model", "moe")
    base = validated(ModelConfig, deep_merge(baseline(size, vocab_size, attention).model_dump(), changes), "model")
    memory_changes, name = dict(_group(spec.model, "model", "memory")), memory_design(spec)
    if name == NONE:
        validated(ModelConfig, base.model_dump() | {"memory": memory_changes}, "model")
        return dict.fromkeys(points, base)
    template = memory_template(size, name)
    orders = memory_changes.pop("max_ngram", template.max_ngram)
    if not isinstance(orders, int) or not 2 <= orders <= _LARGEST_NGRAM:
        raise UserError(f"model.memory.max_ngram: {orders!r} is not allowed: a whole number from 2 to {_LARGEST_NGRAM} is expected")
    values = template.model_dump() | {"table_sizes": (NO_ROWS,) * (orders - 1)}
    memory = validated(type(template), deep_merge(values, memory_changes), "model.memory")
    try:
        memory.check(base.backbone)
    except ValueError as problem:
        raise UserError(f"model.{problem}") from None
    if spec.slots:
        return {slots: with_slots(base, memory, int(slots)) for slots in points}
    return {rho: allocate(base, memory, rho) for rho in points}


def train_config(spec: SweepSpec, size: Size, steps: int) -> TrainConfig:
    """Training of a size with the sweep's overrides."""
    optimizer = str(_group(spec.train, "train", "optimizer").get("kind", DEFAULT_OPTIMIZER))
    _group(spec.train, "train", "schedule")
    return validated(TrainConfig, deep_merge(train_defaults(size, optimizer), spec.train) | {"steps": steps}, "train")


def validated(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A config of `kind`; UserError in one line with the path of the wrong field."""
    try:
        return kind.model_validate(values)
    except ValidationError as problem:
        raise UserError(f"{where}.{first_error(problem)}") from None
