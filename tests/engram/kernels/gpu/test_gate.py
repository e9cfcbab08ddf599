import pytest
import torch

from engram import kernels
from engram.memory.fusion import gated_values

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("few_programs")


@pytest.mark.parametrize("kind", ["plain", "signed_sqrt"])
@pytest.mark.parametrize(("branches", "width"), [(1, 144), (3, 24), (4, 32)])
@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 1e-5), (True, 4e-2)])
def test_gate(device: torch.device, kind: str, branches: int, width: int, autocast: bool, tolerance: float) -> None:
    torch.manual_seed(0)
    weights = {
        "key": torch.randn(branches, width, 16, device=device) / 4,
        "value": torch.randn(width, 16, device=device) / 4,
        "query_norm": torch.rand(branches, width, device=device) + 0.5,
        "key_norm": torch.rand(branches, width, device=device) + 0.5,
    }
    vectors, hidden = torch.randn(2, 41, 16, device=device), torch.randn(2, 41, branches, width, device=device)
    hidden[0, 0] = 0  # a score of zero
    grad = torch.randn(2, 41, branches, width, device=device)
    results = {}
    for plain in (False, True):
        inputs = [x.detach().clone().requires_grad_() for x in (vectors, hidden, *weights.values())]
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):  # keys rounded alike: scores near zero have steep gates
            if plain:
                with kernels.plain():
                    update = gated_values(dict(zip(weights, inputs[2:], strict=True)), inputs[0], inputs[1], kind, 1e-6)
            else:
                update = gated_values(dict(zip(weights, inputs[2:], strict=True)), inputs[0], inputs[1], kind, 1e-6)
                assert update.dtype == (torch.bfloat16 if autocast else torch.float32)
        update.backward(grad.to(update.dtype))
        results[plain] = [update.detach().float()] + [x.grad for x in inputs]
    tolerance *= 10 if kind == "signed_sqrt" else 1  # its slope at a score close to zero multiplies rounding
    for mine, expected in zip(results[False], results[True], strict=True):
        assert mine is not None
        assert expected is not None
        torch.testing.assert_close(mine, expected, rtol=10 * tolerance, atol=tolerance * float(expected.abs().max()))
