"""The base class of all configs."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

NOT_A_NUMBER = "flag_for_a_number"
"""Type of the error of a field that is True or False where a number belongs; its context has the name as `field`."""


class FrozenConfig(BaseModel):
    """Base of all configs: immutable, no unknown fields, no NaN, and True is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _flags_are_no_numbers(cls, values: Any) -> Any:
        # YAML reads `on`, `yes` and `true` as True, which pydantic would take for 1.
        for name, value in values.items() if isinstance(values, Mapping) else ():
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, bool) and _takes_numbers_only(cls, name):
                    message = "{given} is not allowed: a number is expected"
                    raise PydanticCustomError(NOT_A_NUMBER, message, {"given": str(one), "field": name})
        return values


@functools.cache
def _takes_numbers_only(config: type[BaseModel], field: str) -> bool:
    known = config.model_fields.get(field)
    kinds = set(_kinds(known.annotation)) if known else set()
    return bool not in kinds and bool({int, float} & kinds)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation such as `tuple[int, ...] | None` is made of."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for one in inner:
        yield from _kinds(one)
