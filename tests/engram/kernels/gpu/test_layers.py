"""All kernels of a model together."""

import pytest
import torch

from engram import kernels
from engram.config.model import ModelConfig
from engram.model import Transformer

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("few_programs")


@pytest.mark.parametrize(("branches", "design"), [(1, "engram"), (3, "engram-v4.1")])
def test_a_model_with_and_without_kernels(device: torch.device, branches: int, design: str) -> None:
    config = ModelConfig.model_validate(
        {
            "vocab_size": 97,
            "width": 24,
            "n_layers": 2,
            "branches": branches,
            "attention": {"kind": "mha", "n_heads": 3, "key_shift": True},
            "moe": {"n_routed_experts": 5, "top_k": 2, "expert_width": 8, "shared_width": 8},
            "memory": {"design": design, "layers": [0, 1], "table_sizes": [40, 50] + [60] * (branches > 1), "n_heads": 2, "memory_dim": 12},
        }
    )
    model = Transformer(config, torch.arange(97) // 2, pad_id=3)
    model.initialise(0)
    model.to(device)
    tokens = torch.randint(97, (2, 7), generator=torch.Generator().manual_seed(0)).to(device)
    grad = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1)).to(device)
    results = {}
    for plain in (False, True):
        model.zero_grad()
        if plain:
            with kernels.plain():
                out = model(tokens)
        else:
            out = model(tokens)
        out.backward(grad)
        results[plain] = {"out": out.detach(), **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}
    assert results[False].keys() == results[True].keys()
    for name, expected in results[True].items():
        atol = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(results[False][name], expected, rtol=1e-3, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
