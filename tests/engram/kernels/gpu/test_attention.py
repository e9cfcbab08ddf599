import pytest
import torch

from engram import kernels
from engram.config.model import RopeConfig
from engram.history import History
from engram.kernels import ops
from engram.model.attention import attend, shift_half
from engram.model.rotary import rotary_tables, rotate
from tests.engram.kernels.gpu.compare import numbers

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("few_programs")


def causal_attention(qkv: torch.Tensor, length: int, shift: bool) -> torch.Tensor:
    cos, sin = rotary_tables(RopeConfig(), qkv.shape[-1], torch.arange(length, device=qkv.device))

    def otherwise() -> torch.Tensor:
        query, key, value = qkv.unbind(-3)
        if shift:
            key = shift_half(History().window("key", key, 1))
        return attend(rotate(query, (cos, sin)), rotate(key, (cos, sin)), value, None, 0.3)

    return ops.causal_attention(qkv, cos, sin, 0.3, shift, otherwise)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize(("batch", "length", "heads", "channels"), [(2, 37, 3, 48), (1, 5, 1, 24), (3, 1, 2, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 6e-2)])
def test_attention(
    device: torch.device, shift: bool, batch: int, length: int, heads: int, channels: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(batch, length, 3, heads, channels, device=device).to(dtype).requires_grad_()
    grad = torch.randn(batch, length, heads * channels, device=device)
    results = {}
    for plain in (False, True):
        x = qkv.detach().float().requires_grad_() if plain else qkv
        if plain:
            with kernels.plain():
                out = causal_attention(x, length, shift)
        else:
            out = causal_attention(x, length, shift)
            assert out.dtype == dtype
        out.backward(grad.to(out.dtype))
        assert x.grad is not None
        results[plain] = out.detach().float(), x.grad.float()
    for mine, expected in zip(results[False], results[True], strict=True):
        torch.testing.assert_close(mine, expected, rtol=tolerance, atol=tolerance)
    assert qkv.grad is not None
    assert qkv.grad.dtype == dtype


def test_heads_of_a_width_that_fused_attention_would_pad(device: torch.device) -> None:
    qkv = torch.randn(1, 4, 3, 2, 6, device=device)
    with kernels.plain():
        expected = causal_attention(qkv, 4, True)
    torch.testing.assert_close(causal_attention(qkv, 4, True), expected)


def test_training_repeats_to_the_bit(device: torch.device) -> None:
    torch.manual_seed(0)
    length = 512 if device.type == "cuda" else 9
    qkv = torch.randn(2, length, 3, 4, 32, device=device, dtype=torch.bfloat16, requires_grad=True)
    grads = set()
    for _ in range(3):
        out = causal_attention(qkv, length, True)
        (found,) = torch.autograd.grad(out, qkv, out.detach())
        grads.add(tuple(found.float().flatten().tolist()))
    assert len(grads) == 1
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("widths", [(16, 16), (20, 12)])
def test_latent_attention_repeats_to_the_bit(device, widths):
    """Its heads are prepared elsewhere, and their values may be narrower."""
    c, v = widths
    query, key, value = (numbers(2, 9, 3, width, seed=seed).to(device).requires_grad_() for seed, width in enumerate((c, c, v)))
    found = []
    for _ in range(2):
        out = attend(query, key, value, None, 0.3)
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), (query, key, value))])
    with kernels.plain():
        out = attend(query, key, value, None, 0.3)
        wanted = [out.detach(), *torch.autograd.grad(out.square().sum(), (query, key, value))]
    for one, other, plain in zip(*found, wanted, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, plain, rtol=1e-4, atol=1e-5)
