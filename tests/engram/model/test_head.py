import torch
from torch.nn import functional as F

from engram.model.head import mean_cross_entropy, token_cross_entropy


def test_fused_loss_and_gradients_equal_torch():
    hidden = torch.randn(600, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 16, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (600,))
    loss = mean_cross_entropy(hidden, weight, targets) * 3
    ours = torch.autograd.grad(loss, (hidden, weight))
    expected = F.cross_entropy(hidden @ weight.t(), targets) * 3
    theirs = torch.autograd.grad(expected, (hidden, weight))
    assert torch.allclose(loss, expected, atol=1e-12)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))
    each = token_cross_entropy(hidden, weight, targets)
    assert torch.allclose(3 * each.mean(), loss, atol=1e-12)


def test_large_logits_do_not_overflow():
    hidden, weight = torch.full((2, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    assert mean_cross_entropy(hidden, weight, torch.tensor([0, 0])).item() == 0.0
