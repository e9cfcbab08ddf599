"""What one trial is: its model, its training, its text and its seed."""

import hashlib
import json

from pydantic import Field

from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.frozen import FrozenConfig


class TrialConfig(FrozenConfig):
    """Everything that defines one trial; equal configs are the same trial on every machine."""

    size: str
    rho: float = Field(ge=0, le=1)
    """Share of the inactive parameters that goes to routed experts."""
    seed: int = Field(ge=0)
    """Seed of initialisation and data order."""
    budget_flops: float = Field(gt=0)
    """Training FLOPs asked for, in the paper's count (6 P_active per token)."""
    model: ModelConfig
    train: TrainConfig
    corpus_fingerprint: str
    tokenizer_fingerprint: str
    axes: tuple[tuple[str, str], ...] = ()
    """Axis and label for every further axis of the sweep: names for what the other fields hold, and not part of the id."""
    continues: str | None = None
    """Id of the trial whose final weights this one starts from (`engram.training.extension`); None: weights are drawn from the seed."""

    @property
    def variant(self) -> str:
        """The labels in one line; empty if the sweep has no further axes."""
        return ", ".join(label for _, label in self.axes)

    @property
    def id(self) -> str:
        """12 hexadecimal digits of the SHA-256 of this config in canonical JSON."""
        values = self.model_dump(mode="json", exclude={"axes"})
        # A trial keeps the id it had before these fields existed.
        if self.continues is None:
            del values["continues"]
        for name, was in (("table_optimizer", "adam"), ("table_format", "fp32")):
            if values["train"][name] == was:
                del values["train"][name]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]
