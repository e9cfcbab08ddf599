import pytest
import torch

from engram.accounting import model_flops_per_token
from engram.benchmarks.parts import PARTS, PER_STEP, calls_per_step, capture, part_cases
from engram.benchmarks.products import product_cases, product_times, step_products
from engram.benchmarks.shapes import STUDY, dense_twin
from engram.benchmarks.timing import interleave
from engram.benchmarks.train import measure_training
from engram.benchmarks.workers import train_side_by_side
from engram.errors import UserError
from engram.training import validation

pytestmark = pytest.mark.usefixtures("one_thread")
MEMORY = {"hashing", "lookup", "memory fusion", "row-wise adam"}
SPARSE = {"router", "experts", "shared expert", "balancing"}


def names_of(trainer) -> set[str]:
    return set(part_cases(trainer, capture(trainer), 0.1))


def test_a_step_has_the_parts_that_its_model_has(setup):
    everything, sparse = set(PARTS), setup.sparse(0.5)
    assert names_of(setup.trainer(sparse)) == everything - {"dense feed-forward"}
    assert names_of(setup.trainer(setup.sparse(1.0))) == everything - {"dense feed-forward"} - MEMORY
    adamw = type(setup)(setup.size, "adamw", setup.corpus, setup.device, "fp32")
    assert names_of(adamw.trainer(dense_twin(sparse))) == everything - MEMORY - SPARSE - {"muon"}


def test_parts_and_the_rest_are_the_whole_step(setup):
    speed = measure_training(setup, 0.5, seconds=0.05, rounds=2)
    assert [part.name for part in speed.parts] == [name for name in PARTS if name != "dense feed-forward"]
    assert sum(part.seconds.median for part in speed.parts) + speed.other_s == pytest.approx(speed.step_s.median)
    for part in speed.parts:
        assert 0 < part.seconds.low <= part.seconds.median <= part.seconds.high
        assert part.share == pytest.approx(part.seconds.median / speed.step_s.median)
    assert speed.tokens_per_s.high == pytest.approx(speed.tokens_per_step / speed.step_s.low)
    assert speed.products_share == pytest.approx(speed.flops_per_s / speed.products_flops_per_s, rel=0.02)
    assert speed.machine.precision == "fp32"


def test_training_goes_on_after_its_parts_were_measured(setup):
    trainer = setup.trainer(setup.sparse(0.5))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items() if value.is_floating_point()}
    captured = capture(trainer)
    assert all(p.grad is None for p in trainer.model.parameters())
    assert not any(table.touched for table in trainer.model.tables())
    interleave(part_cases(trainer, captured, 0.1), 1, 0.0)
    trainer.advance(0.05)
    assert trainer.error is None
    for name, value in trainer.model.state_dict().items():
        if name in before and "router" not in name:
            # The rate is that of the beginning of a warm-up without end.
            torch.testing.assert_close(value, before[name], rtol=1e-3, atol=1e-4)


def test_a_step_of_several_passes(setup, monkeypatch):
    monkeypatch.setattr(validation, "PASS_TOKENS", 512)
    trainer = setup.trainer(setup.sparse(0.5))
    captured = capture(trainer)
    assert captured.passes == 4
    assert captured.tokens.shape == (8, 64)
    assert [len(rows) for rows in captured.touched] == [4]
    assert calls_per_step("attention", captured) == 4
    assert calls_per_step("muon", captured) == 1
    assert set(PARTS) > PER_STEP


@pytest.mark.parametrize("kind", ["memory", "experts", "dense"])
def test_the_products_are_the_flops_that_are_counted(setup, kind):
    setup = type(setup)(STUDY, "muon", setup.corpus, setup.device)
    model = setup.sparse(1.0 if kind == "experts" else 0.8)
    model = dense_twin(model) if kind == "dense" else model
    products = step_products(model, sequences=4, seq_len=128, passes=4)
    # Whole tokens for each expert: a little more than the mean.
    assert sum(p.flops for p in products) == pytest.approx(model_flops_per_token(model, 128) * 16 * 128, rel=0.01)
    assert len({p.name for p in products}) == len(products)


def test_a_product_is_taken_in_its_faster_type(setup):
    products = [p for p in step_products(setup.sparse(0.5), 2, 64) if p.name in ("router", "experts out")]
    cases = product_cases(products, "bf16", setup.device, 1.0)
    assert list(cases) == ["product router fp32", "product experts out bf16", "product experts out fp32"]
    assert all(case.turn(0.0) > 0 for case in cases.values())
    times = dict(zip(cases, ([1.0, 1.0], [3.0, 5.0], [2.0, 4.0]), strict=True))
    router, experts = product_times(products, "bf16", times)
    assert (router.dtype, experts.dtype) == ("fp32", "fp32")
    assert experts.seconds.median == 3.0 * experts.count
    assert list(product_cases(products, "fp32", setup.device, 1.0)) == ["product router fp32", "product experts out fp32"]


def test_a_copy_that_fails_ends_the_others(setup):
    wrong = type(setup)(setup.size, "muon", setup.corpus, torch.device("meta"))
    with pytest.raises(UserError, match="device 'meta' is unknown"):
        train_side_by_side(wrong, setup.sparse(1.0), 1.0, 2, 0.1, 1)
