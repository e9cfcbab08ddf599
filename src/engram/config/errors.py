"""What pydantic finds wrong with a config, in one line for a person."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engram.errors import UserError
from engram.frozen import NOT_A_NUMBER

CHOOSERS = {"optimizer": "kind", "schedule": "kind", "attention": "kind", "memory": "design"}
"""Fields that hold one of several configs, and the field in it that says which."""

Config = TypeVar("Config", bound=BaseModel)


def explain(problem: ValidationError) -> str:
    """The first validation error in one line: the field's path, what is allowed, and the value where the message lacks it."""
    error = problem.errors()[0]
    path = [str(part) for part in error["loc"]]
    # Below a choice, pydantic puts the name of what was chosen into the path; the user's values have no such level.
    path = [part for i, part in enumerate(path) if i == 0 or path[i - 1] not in CHOOSERS]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "no such field"
    elif error["type"] == "missing":
        message = "this field is required"
    elif error["type"] == "union_tag_invalid":
        path.append(error["ctx"]["discriminator"].strip("'"))
        message = f"{error['ctx']['tag']!r} is not allowed: input should be {error['ctx']['expected_tags']}"
    elif error["type"] == NOT_A_NUMBER:
        path.append(error["ctx"]["field"])
    elif error["type"] != "value_error":
        message = f"{error['input']!r} is not allowed: {message[:1].lower()}{message[1:]}"
    where = ".".join(path)
    return f"{where}: {message}" if where else message


def validated(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """A config of `kind` from its fields' values; UserError in one line with the path of the wrong field, which begins with `where`."""
    try:
        return kind.model_validate(values)
    except ValidationError as problem:
        raise UserError(f"{where}.{explain(problem)}") from None
