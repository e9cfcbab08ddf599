"""Whole training steps of a model with memory: hashing, lookup, gradients, clipping and updates."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from engram import kernels
from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.model import Transformer
from engram.training.optimizers.combined import Optimizers

DESIGNS: dict[str, dict[str, Any]] = {
    "engram": {"layers": [0, 1], "table_sizes": [40, 50]},
    "over-encoding": {"table_sizes": [40, 50]},
    "value": {"layers": [0, 1], "table_sizes": [40, 50]},
}


def drawn(design: str) -> Transformer:
    memory = {"design": design, "n_heads": 2, "memory_dim": 12, **DESIGNS[design]}
    attention = {"kind": "mha", "n_heads": 3}
    moe = {"n_routed_experts": 5, "top_k": 2, "expert_width": 8, "shared_width": 10}
    config = {"vocab_size": 97, "width": 24, "n_layers": 2, "branches": 1, "attention": attention, "moe": moe, "memory": memory}
    model = Transformer(ModelConfig.model_validate({**config, "table_init_std": 0.1}), torch.arange(97) // 2, pad_id=3)
    model.initialise(0)
    return model


def trained(use: bool, design: str, device: torch.device, bf16: bool, **settings: Any) -> tuple[Transformer, Optimizers, list[float]]:
    """A model after two steps of two passes each, and the gradient norms; with the kernels or without."""
    model = drawn(design).to(device).train()
    train = {"steps": 9, "batch_size": 2, "seq_len": 8, "learning_rate": 0.01, "grad_clip": 0.5, **settings}
    optimizers = Optimizers(model, TrainConfig.model_validate(train))
    norms = []
    with nullcontext() if use else kernels.plain():
        for step in range(2):
            for part in range(2):
                tokens: Tensor = torch.randint(97, (2, 41), generator=torch.Generator().manual_seed(step * 2 + part)).to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
            norms.append(optimizers.step(1.0).item())
    return model, optimizers, norms


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("bf16", [False, True])
def test_steps(device, design, bf16):
    settings = {"table_optimizer": "adagrad"}  # unlike Adam's, its step does not turn a little noise into a full step
    ours, plain = (trained(use, design, device, bf16, **settings) for use in (True, False))
    assert ours[2] == pytest.approx(plain[2], rel=0.02 if bf16 else 1e-4)
    start = dict(drawn(design).to(device).named_parameters())
    for name, weight in ours[0].named_parameters():
        if "tables" in name or "embedding" in name:
            moved = (plain[0].get_parameter(name) - start[name]).norm()
            assert (weight - plain[0].get_parameter(name)).norm() < (0.3 if bf16 else 2e-3) * moved, name
    state, its_state = (one[1].state() for one in (ours, plain))
    assert state.keys() == its_state.keys()
    assert state["rows/steps"] == its_state["rows/steps"] == 2
    tokens = torch.arange(20, device=device).view(1, 20)
    with torch.no_grad():
        with kernels.plain():
            expected = ours[0].eval()(tokens)
        torch.testing.assert_close(ours[0](tokens), expected, rtol=1e-4, atol=1e-4)


def test_a_step_with_rows_in_bf16(device):
    model, _, _ = trained(True, "engram", device, True, table_format="bf16")
    assert all(torch.isfinite(table.weight).all() for table in model.tables())
