import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engram.training.optimizers import muon as muon_module
from engram.training.optimizers.muon import Muon, logical_matrices, orthogonalise

RATE, DECAY, MOMENTUM, ITERATIONS, STEPS = 0.02, 0.1, 0.9, 5, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pieces_of(name: str, weight: Tensor) -> list[Tensor]:
    """The plain matrices of a fused weight, cut by hand."""
    if name == "shared.gate_up.weight":
        half = len(weight) // 2
        return [weight[:half], weight[half:]]
    if name == "attention.qkv.weight":
        third = len(weight) // 3
        return [weight[:third], weight[third : 2 * third], weight[2 * third :]]
    if name == "experts.gate_up":
        half = weight.shape[-1] // 2
        return [part for expert in weight for part in (expert[:, :half], expert[:, half:])]
    if name == "experts.out":
        return list(weight)
    return [weight]


SHAPES = {
    "attention.qkv.weight": (48, 16),
    "attention.out.weight": (16, 16),
    "shared.gate_up.weight": (24, 16),
    "shared.out.weight": (16, 12),
    "experts.gate_up": (5, 16, 24),
    "experts.out": (5, 12, 16),
    "router.weight": (5, 16),
}


def weights() -> dict[str, Tensor]:
    return {name: draw(*shape, seed=i).div_(4).requires_grad_() for i, (name, shape) in enumerate(SHAPES.items())}


def gradient(name: str, step: int) -> Tensor:
    grad = draw(*SHAPES[name], seed=1000 * step + sum(map(ord, name)))
    if name.startswith("experts.") and step < 3:
        grad[step] = 0  # an expert that no token visits
    return grad


def run_ours(dtype: torch.dtype) -> dict[str, Tensor]:
    ours = weights()
    muon = Muon(ours, MOMENTUM, ITERATIONS, DECAY, dtype)
    for step in range(STEPS):
        for name, weight in ours.items():
            weight.grad = gradient(name, step)
        muon.step(RATE)
    return ours


@pytest.mark.parametrize("name", SHAPES)
def test_the_logical_matrices_are_the_pieces_of_a_fused_weight(name):
    weight = draw(*SHAPES[name])
    views = logical_matrices(name, weight)
    wanted = pieces_of(name, weight)
    assert torch.equal(views.reshape(-1, *views.shape[-2:]), torch.stack(wanted))
    views.zero_()  # a view, so that the optimiser can write through it
    assert not weight.any()


def test_fused_and_stacked_weights_equal_torch_muon_on_their_pieces():
    """Equal to the bit where bmm and mm sum in one order; where they do not, bf16 rounds some entries the other way."""
    ours = run_ours(torch.bfloat16)
    for name, weight in weights().items():
        pieces = [piece.detach().clone().requires_grad_() for piece in pieces_of(name, weight)]
        theirs = torch.optim.Muon(pieces, lr=RATE, weight_decay=DECAY, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
        for step in range(STEPS):
            for piece, grad in zip(pieces, pieces_of(name, gradient(name, step)), strict=True):
                piece.grad = grad.clone()
            theirs.step()
        for mine, piece in zip(pieces_of(name, ours[name]), pieces, strict=True):
            assert torch.allclose(mine, piece, rtol=0, atol=1e-3), name  # an entry moves by about 4e-3 in each step


def reference_muon(weight: Tensor, grads: list[Tensor]) -> Tensor:
    """Muon of one matrix [a, b] in fp64, written from its definition: X <- a X + b (X X^T) X + c (X X^T)^2 X."""
    weight, buffer = weight.double(), torch.zeros_like(weight, dtype=torch.float64)
    for grad in grads:
        buffer = MOMENTUM * buffer + (1 - MOMENTUM) * grad.double()
        x = (1 - MOMENTUM) * grad.double() + MOMENTUM * buffer
        x = x / max(float(x.square().sum()) ** 0.5, 1e-7)
        for _ in range(ITERATIONS):
            gram = x @ x.T
            x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
        weight = (1 - RATE * DECAY) * weight - RATE * 0.2 * max(weight.shape) ** 0.5 * x
    return weight


def test_equals_an_independent_muon_in_full_precision():
    ours = run_ours(torch.float32)
    for name, weight in weights().items():
        grads = [pieces_of(name, gradient(name, step)) for step in range(STEPS)]
        for i, (mine, piece) in enumerate(zip(pieces_of(name, ours[name]), pieces_of(name, weight), strict=True)):
            wanted = reference_muon(piece.detach(), [grad[i] for grad in grads])
            assert torch.allclose(mine.double(), wanted, atol=1e-5), name


def test_a_weight_without_gradient_stays():
    ours = weights()
    before = {name: weight.detach().clone() for name, weight in ours.items()}
    ours["router.weight"].grad = gradient("router.weight", 0)
    Muon(ours, MOMENTUM, ITERATIONS, DECAY, torch.float32).step(RATE)
    assert [name for name in ours if not torch.equal(ours[name], before[name])] == ["router.weight"]


def test_the_updates_have_the_size_of_adamw_updates():
    """RMS of about 0.2 at any shape: U V^T of [a, b] has Frobenius norm sqrt(min(a, b))."""
    for shape in [(64, 64), (128, 32), (32, 128)]:
        weight = torch.zeros(shape, requires_grad=True)
        weight.grad = draw(*shape)
        Muon({"w": weight}, MOMENTUM, ITERATIONS, 0.0, torch.float32).step(1.0)
        assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)


def with_singular_values(values: Tensor, rows: int, columns: int, seed: int) -> Tensor:
    """Random matrices [n, rows, columns] with the singular values [n, min(rows, columns)]."""
    left, _ = torch.linalg.qr(draw(len(values), rows, values.shape[-1], seed=seed))
    right, _ = torch.linalg.qr(draw(len(values), columns, values.shape[-1], seed=seed + 1))
    return left @ torch.diag_embed(values) @ right.mT


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 24), st.integers(1, 24), st.integers(0, 99), st.sampled_from([1e-6, 1.0, 1e6]))
def test_singular_values_end_near_one(n, rows, columns, seed, size):
    values = size * torch.rand(n, min(rows, columns), generator=torch.Generator().manual_seed(seed)).clamp_min(0.1)
    stack = with_singular_values(values, rows, columns, seed)
    for dtype in (torch.float32, torch.bfloat16):
        result = orthogonalise(stack, 5, dtype)
        assert result.dtype == dtype
        assert result.shape == stack.shape
        left = torch.linalg.svdvals(result.float())
        assert left.min() > 0.6
        assert left.max() < 1.3


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_each_matrix_of_a_stack_is_treated_alone(rows, columns, seed):
    stack = draw(2, 3, rows, columns, seed=seed) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    together = orthogonalise(stack, 5, torch.float32)
    alone = torch.stack([torch.stack([orthogonalise(matrix, 5, torch.float32) for matrix in row]) for row in stack])
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(orthogonalise(stack.mT, 5, torch.float32), together.mT, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_stays_zero(dtype):
    assert not orthogonalise(torch.zeros(3, 4, 6), 5, dtype).any()
    weight = torch.ones(4, 6, requires_grad=True)
    weight.grad = torch.zeros(4, 6)
    Muon({"w": weight}, MOMENTUM, ITERATIONS, DECAY, dtype).step(RATE)
    assert torch.allclose(weight, torch.tensor(1 - RATE * DECAY))


def test_large_models_go_in_several_groups_with_the_same_result(monkeypatch):
    def groups() -> int:
        return len(Muon(weights(), MOMENTUM, ITERATIONS, DECAY, torch.float32).groups)

    few, at_once = groups(), run_ours(torch.float32)
    monkeypatch.setattr(muon_module, "AT_ONCE", 300)
    assert groups() > few
    in_groups = run_ours(torch.float32)
    for name in SHAPES:
        torch.testing.assert_close(in_groups[name], at_once[name], rtol=1e-5, atol=1e-6)
