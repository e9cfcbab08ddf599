import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.config.training import AdamWConfig, MuonConfig, OptimizerConfig, TrainConfig
from engram.memory import tables as tables_module
from engram.memory.tables import EmbeddingTables
from engram.training.optimizers.combined import Optimizers, is_matrix, matrix_names
from engram.training.optimizers.row_optimizer import AdamRows, RowOptimizer
from engram.training.optimizers.scalars import StepScalars, step_scalars

BETAS, EPS = (0.9, 0.95), 1e-8
KINDS = [AdamWConfig(), MuonConfig()]


def make_tables() -> EmbeddingTables:
    torch.manual_seed(0)
    tables = EmbeddingTables([11, 13], row_dim=4)
    nn.init.normal_(tables.weight)
    return tables.train()


def numbers(optimizer: RowOptimizer, rate: float) -> StepScalars:
    return step_scalars(optimizer.steps + 1, rate, rate, BETAS)


@pytest.fixture(params=["as on a CPU", "as on a GPU"])
def _rows_are_found(request, monkeypatch):
    """Both ways of finding the distinct rows: asking how many there are, and without a wait for the device."""
    monkeypatch.setattr(tables_module, "host_may_wait", lambda rows: request.param == "as on a CPU")


@pytest.mark.usefixtures("_rows_are_found")
def test_rows_touched_in_every_step_equal_dense_adam():
    tables = make_tables()
    dense = tables.weight.detach().clone().requires_grad_()
    adam = torch.optim.Adam([dense], lr=0.05, betas=BETAS, eps=EPS)
    ours = RowOptimizer({"t": tables}, AdamRows(BETAS, EPS))
    indices = torch.tensor([[[0, 1], [3, 1], [7, 12]]])
    rows = indices + tables.offsets
    for step in range(20):
        target = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(step))
        (tables(indices) - target).square().sum().backward()
        ours.step(numbers(ours, 0.05))
        adam.zero_grad()
        (F.embedding(rows, dense).flatten(-2) - target).square().sum().backward()
        adam.step()
    assert torch.allclose(tables.weight, dense, atol=1e-5)


@pytest.mark.usefixtures("_rows_are_found")
def test_only_rows_of_the_batch_change():
    tables = make_tables()
    before = tables.weight.clone()
    ours = RowOptimizer({"t": tables}, AdamRows(BETAS, EPS))
    tables(torch.tensor([[[2, 5]]])).sum().backward()
    ours.step(numbers(ours, 0.1))
    changed = (tables.weight != before).any(1).nonzero().flatten().tolist()
    assert changed == [2, 16]
    first, second = ours.state["t"].values()
    assert first.abs().sum(1).nonzero().flatten().tolist() == second.sum(1).nonzero().flatten().tolist() == [2, 16]


@pytest.mark.usefixtures("_rows_are_found")
def test_two_passes_in_a_step_add_their_gradients():
    one, two = make_tables(), make_tables()
    optimizers = [RowOptimizer({"t": t}, AdamRows(BETAS, EPS)) for t in (one, two)]
    a, b = torch.tensor([[[2, 5], [3, 5]]]), torch.tensor([[[3, 5], [4, 0]]])
    one(torch.cat([a, b], dim=1)).square().sum().backward()
    two(a).square().sum().backward()
    two(b).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step(numbers(optimizer, 0.1))
    assert torch.allclose(one.weight, two.weight, atol=1e-6)


def test_a_row_that_rests_keeps_weight_and_moments_unlike_in_dense_adam():
    """The documented difference, on row 2: touched in steps 1 and 4, its gradients 2 and then -3 in every number."""
    tables = make_tables()
    start = tables.weight[2].clone()
    dense = tables.weight.detach().clone().requires_grad_()
    adam = torch.optim.Adam([dense], lr=0.1, betas=BETAS, eps=EPS)
    ours = RowOptimizer({"t": tables}, AdamRows(BETAS, EPS))

    def step(row: int, gradient: float) -> None:
        indices = torch.tensor([[[row, 0]]])
        (gradient * tables(indices)).sum().backward()
        ours.step(numbers(ours, 0.1))
        adam.zero_grad()
        (gradient * F.embedding(indices + tables.offsets, dense)).sum().backward()
        adam.step()

    step(2, 2.0)
    assert torch.allclose(tables.weight, dense, atol=1e-6)
    after_one = tables.weight[2].clone()
    moments = [moment[2].clone() for moment in ours.state["t"].values()]
    assert torch.allclose(after_one, start - 0.1, atol=1e-6)  # Adam's first step has the length of the rate

    step(3, 1.0)
    step(3, 1.0)
    assert torch.equal(tables.weight[2], after_one)
    assert all(torch.equal(moment[2], kept) for moment, kept in zip(ours.state["t"].values(), moments, strict=True))
    assert (dense[2] < after_one - 0.05).all()  # momentum alone moved it on

    step(2, -3.0)
    first = 0.9 * (0.1 * 2.0) + 0.1 * -3.0  # decayed once, for the three steps since
    second = 0.95 * (0.05 * 2.0**2) + 0.05 * 3.0**2
    moved = 0.1 * (first / (1 - 0.9**4)) / ((second / (1 - 0.95**4)) ** 0.5 + EPS)  # corrected for all four steps
    assert torch.allclose(tables.weight[2], after_one - moved, atol=1e-6)
    assert torch.allclose(ours.state["t"]["first"][2], torch.tensor(first), atol=1e-6)
    assert torch.allclose(ours.state["t"]["second"][2], torch.tensor(second), atol=1e-6)


class Memory(nn.Module):
    """Plain parameters; says itself which are matrices."""

    matrices = frozenset({"key"})

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.empty(8, 8))
        self.key_norm = nn.Parameter(torch.empty(2, 4))
        self.conv = nn.Parameter(torch.empty(8, 4))
        self.tables = EmbeddingTables([11, 13], row_dim=4)

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        memory = self.tables(indices) @ self.key
        return x + memory * self.key_norm.flatten() * self.conv.sum(-1)


class Experts(nn.Module):
    """Every token visits all three experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(3, 8, 12))
        self.out = nn.Parameter(torch.empty(3, 6, 8))

    def forward(self, x: Tensor) -> Tensor:
        gate, up = torch.einsum("td,edw->etw", x, self.gate_up).chunk(2, dim=-1)
        return torch.bmm(F.silu(gate) * up, self.out).sum(0)


class Toy(nn.Module):
    """One weight of every kind, under the names that the real model has."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.memory = Memory()
        self.norm = nn.RMSNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.experts = Experts()
        self.head = nn.Linear(8, 20, bias=False)
        for i, parameter in enumerate(self.parameters()):
            nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(i))

    def loss(self, step: int) -> Tensor:
        tokens = torch.randint(0, 11, (6,), generator=torch.Generator().manual_seed(step))
        x = self.memory(self.embedding(tokens), torch.stack([tokens, tokens], -1))
        query, key, value = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + F.softmax(query @ key.T, -1) @ value
        return F.cross_entropy(self.head(x + self.experts(x)), (tokens + 1) % 20)


MATRICES = {"memory.key", "qkv.weight", "experts.gate_up", "experts.out", "head.weight"}


def config(optimizer: OptimizerConfig, **train: float) -> TrainConfig:
    return TrainConfig.model_validate({"steps": 9, "batch_size": 1, "seq_len": 8, "learning_rate": 0.01, "optimizer": optimizer, **train})


def train_steps(model: Toy, optimizers: Optimizers, steps: range) -> list[float]:
    norms = []
    for step in steps:
        model.loss(step).backward()
        norms.append(float(optimizers.step(1.0)))
    return norms


def test_the_matrices_of_a_model():
    assert matrix_names(Toy()) == MATRICES


@pytest.mark.parametrize(
    ("name", "shape", "matrix"),
    [
        ("blocks.0.attention.qkv.weight", (24, 8), True),
        ("blocks.0.feed_forward.experts.gate_up", (3, 8, 12), True),
        ("blocks.0.feed_forward.shared.gate_up.weight", (24, 8), True),
        ("blocks.0.feed_forward.router.weight", (3, 8), True),
        ("blocks.0.hyper.fn", (24, 32), True),
        ("blocks.0.hyper.base", (24,), False),
        ("blocks.0.memory.gate", (4, 8), False),
        ("blocks.0.engram.fusion.conv.weight", (1, 8, 4), False),
        ("blocks.0.engram.fusion.key_norm.weight", (1, 8), False),
        ("blocks.0.attention.qkv.bias", (3, 8), False),
        ("memory_embedding.out", (8, 8), True),
        ("embedding.weight", (20, 8), False),
        ("head.weight", (20, 8), True),
        ("norm.weight", (8,), False),
    ],
)
def test_the_rule_by_name(name, shape, matrix):
    assert is_matrix(name, torch.empty(shape)) == matrix


def test_adamw_decays_the_matrices_alone():
    """One step with and without decay from equal weights: they differ by rate x decay x weight on matrices, nowhere else."""
    decayed, plain = Toy(), Toy()
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    for model, decay in ((decayed, 0.5), (plain, 0.0)):
        train_steps(model, Optimizers(model, config(AdamWConfig(), weight_decay=decay)), range(1))
    for (name, p), q in zip(plain.named_parameters(), decayed.parameters(), strict=True):
        shrunk = 0.01 * 0.5 * before[name] if name in MATRICES else torch.zeros(())
        assert torch.allclose(p - q, shrunk, atol=1e-6), name


def test_muon_takes_the_matrices_but_the_head_and_adamw_the_rest_as_without_it():
    """After one step from equal weights the others are where plain AdamW puts them, the matrices are not."""
    models = [Toy(), Toy()]
    for model, kind in zip(models, KINDS, strict=True):
        optimizers = Optimizers(model, config(kind, weight_decay=0.3))
        assert set(optimizers.muon.weights if optimizers.muon else ()) == (MATRICES - {"head.weight"} if kind.kind == "muon" else set())
        train_steps(model, optimizers, range(1))
    adamw, muon = (dict(model.named_parameters()) for model in models)
    assert {name for name in adamw if not torch.equal(adamw[name], muon[name])} == MATRICES - {"head.weight"}


def test_the_moments_of_adam_come_from_the_config_of_either_kind():
    for kind in (AdamWConfig(beta1=0.5, beta2=0.6, eps=1e-3), MuonConfig(beta1=0.5, beta2=0.6, eps=1e-3)):
        optimizers = Optimizers(Toy(), config(kind))
        assert (optimizers.rows.rule.betas, optimizers.rows.rule.eps) == ((0.5, 0.6), 1e-3)
        assert all((group["betas"], group["eps"]) == ((0.5, 0.6), 1e-3) for group in optimizers.adamw.param_groups)


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_is_of_all_gradients_together_and_a_step_learns(kind):
    model = Toy()
    optimizers = Optimizers(model, config(kind))
    model.loss(0).backward()
    first = model.loss(0).item()
    model.memory.tables.touched.pop()  # of the loss just looked at
    gradients = [p.grad for p in model.parameters() if p.grad is not None] + [leaf.grad for _, leaf in model.memory.tables.touched]
    wanted = torch.cat([grad.flatten() for grad in gradients if grad is not None]).norm()
    assert torch.allclose(optimizers.step(1.0), wanted)
    assert all(p.grad is None for p in model.parameters())
    assert not model.memory.tables.touched
    for _ in range(5):
        train_steps(model, optimizers, range(1))
    assert model.loss(0).item() < first


@pytest.mark.parametrize("kind", KINDS)
def test_tables_step_at_a_multiple_of_the_rate(kind):
    model, before = Toy(), Toy().memory.tables.weight
    train_steps(model, Optimizers(model, config(kind, table_lr_multiplier=7.0)), range(1))
    # Adam's first step has the length of the rate, but for numbers whose gradient is near eps
    assert float((model.memory.tables.weight - before).abs().max()) == pytest.approx(7 * 0.01, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_factor_of_zero_moves_nothing(kind):
    model = Toy()
    model.loss(0).backward()
    Optimizers(model, config(kind)).step(0.0)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), Toy().parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_restored_optimizers_continue_to_the_bit(kind):
    straight, resumed = Toy(), Toy()
    optimizers = Optimizers(straight, config(kind))
    train_steps(straight, optimizers, range(4))
    resumed.load_state_dict(straight.state_dict())
    again = Optimizers(resumed, config(kind))
    again.load_state(optimizers.state())  # a copy: what follows must not reach back
    assert train_steps(straight, optimizers, range(4, 9)) == train_steps(resumed, again, range(4, 9))
    assert all(torch.equal(p, q) for p, q in zip(straight.parameters(), resumed.parameters(), strict=True))
    states = [optimizers.state(), again.state()]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
