"""Model and training configs of a sweep: those of the ladder and the recipe, with the sweep's overrides."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engram.config.errors import validated
from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.errors import UserError
from engram.memory.designs.base import NO_ROWS
from engram.memory.designs.registry import NONE
from engram.scaling.allocation import allocate, baseline, memory_template, with_slots
from engram.scaling.ladder import Size
from engram.scaling.recipe import RECIPES
from engramctl.sweep.overrides import deep_merge

if TYPE_CHECKING:
    from engramctl.sweep.spec import SweepSpec

DEFAULT_DESIGN, DEFAULT_ATTENTION = "engram", "mha"
_LARGEST_NGRAM = 8


def override_group(values: Mapping[str, Any], where: str, name: str) -> dict[str, Any]:
    """The overrides of one group of fields, such as `attention`; UserError when there is anything but a mapping."""
    found = values.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}.{name}: {found!r} is not allowed: fields of it are expected, such as {{kind: ...}} or {{design: ...}}")
    return found


def memory_design(spec: "SweepSpec") -> str:
    """Name of a sweep's memory design."""
    return str(override_group(spec.model, "model", "memory").get("design", DEFAULT_DESIGN))


def sized_models(spec: "SweepSpec", size: Size, points: Sequence[float], vocab_size: int) -> dict[float, ModelConfig]:
    """The model at each of `points`, with the sweep's overrides: at each rho, with equal P_total and P_active, or each number of slots."""
    changes = {name: value for name, value in spec.model.items() if name != "memory"}
    attention = str(override_group(changes, "model", "attention").get("kind", DEFAULT_ATTENTION))
    override_group(changes, "model", "moe")  # refuses what is not a mapping
    base = validated(ModelConfig, deep_merge(baseline(size, vocab_size, attention).model_dump(), changes), "model")
    memory_changes, name = dict(override_group(spec.model, "model", "memory")), memory_design(spec)
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


def train_config(spec: "SweepSpec", size: Size, steps: int) -> TrainConfig:
    """Training config of a size, with the sweep's overrides."""
    recipe = RECIPES[spec.recipe]
    optimizer = str(override_group(spec.train, "train", "optimizer").get("kind", recipe.optimizer))
    override_group(spec.train, "train", "schedule")  # refuses what is not a mapping
    return validated(TrainConfig, deep_merge(recipe.train_defaults(size, optimizer), spec.train) | {"steps": steps}, "train")
