"""A sixth memory design is one file and one line in the registry."""

import subprocess
import sys

SIXTH = """
from typing import Literal
from engram.memory.designs import registry
from engram.memory.designs.base import NO_ROWS, LayeredMemory, Weight

class Shout(LayeredMemory):
    site = "residual"
    design: Literal["shout"] = "shout"
    loudness: float = 2.0

    @classmethod
    def for_shape(cls, width, n_layers):
        return cls(layers=(0,), table_sizes=(NO_ROWS,), n_heads=2, memory_dim=width)

    def weights(self, model):
        return {"mix": Weight((model.width, self.memory_dim), 0.1, matrix=True)}

    def add(self, weights, vectors, stream, model, past):
        return self.loudness * (vectors @ weights["mix"].t()).unsqueeze(2).expand_as(stream)

registry.DESIGNS["shout"] = Shout

import torch
from engram.scaling.accounting import count_parameters
from engram.config.model import ModelConfig
from engram.model.generation import generate
from engram.model import Transformer
from engram.scaling.recipe import DEFAULT_RECIPE
from engram.scaling.ladder import LADDER
from engram.training.optimizers.combined import Optimizers
from engramctl.sweep.build import expand
from engramctl.sweep.spec import SweepSpec

spec = SweepSpec.model_validate(
    {"question": "loud?", "sizes": ["1m"], "rhos": [0.5, 1], "budgets": ["1e12"],
     "model": {"branches": 2, "memory": {"design": "shout", "loudness": 3.0}}}
)
trial = expand(spec, [1e12], 300, "c", "t")[0]
config = ModelConfig.model_validate_json(trial.model.model_dump_json())
assert config == trial.model and config.memory.loudness == 3.0
model = Transformer(config)
model.initialise(0)
counts = count_parameters(config)
assert counts.p_total + counts.p_embedding == sum(p.numel() for p in model.parameters())
optimizers = Optimizers(model.train(), trial.train)
assert any("memory.mix" in name for name in optimizers.muon.weights)
tokens = torch.randint(0, 300, (4, 33))
losses = []
for _ in range(8):
    loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    optimizers.step(1.0)
    losses.append(loss.item())
assert losses[-1] < losses[0] - 0.5, losses
assert len(generate(model, [[1, 2, 3]], 5, end_id=300)[0]) == 5
print("ok")
"""


def test_a_sixth_design_is_counted_allocated_trained_and_generates():
    done = subprocess.run([sys.executable, "-c", SIXTH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"
