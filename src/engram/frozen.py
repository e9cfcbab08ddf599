"""The base class of all configs."""

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """Base of all configs: immutable, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
