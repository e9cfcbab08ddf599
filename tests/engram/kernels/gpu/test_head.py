import pytest
import torch

from engram import kernels
from engram.model.head import mean_cross_entropy, token_cross_entropy


def inputs(device, n=37, width=24, vocabulary=301):
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(n, width, generator=generator), torch.randn(vocabulary, width, generator=generator)
    targets = torch.randint(vocabulary, (n,), generator=generator)
    return hidden.to(device).requires_grad_(), weight.to(device).requires_grad_(), targets.to(device)


def run(device, autocast):
    hidden, weight, targets = inputs(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        loss = mean_cross_entropy(hidden, weight, targets)
        each = token_cross_entropy(hidden.detach(), weight, targets)
    loss.backward()
    return loss.detach(), each, hidden.grad, weight.grad


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("chunk", [None, 10])
def test_losses_and_gradients(device, monkeypatch, autocast, chunk):
    from engram.kernels.gpu import head

    if chunk is not None:
        monkeypatch.setattr(head, "CHUNK_BYTES", chunk * 301 * (2 if autocast else 4))
        monkeypatch.setattr(head, "_BLOCK", 128)  # several passes over a row
    found = run(device, autocast)
    with kernels.plain():
        wanted = run(device, False)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=(0.02 if autocast else 2e-6) * float(other.abs().max()))
