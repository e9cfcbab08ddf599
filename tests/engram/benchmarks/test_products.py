import pytest

from engram.benchmarks.products import product_cases, product_times, step_products
from engram.benchmarks.shapes import STUDY, dense_twin
from engram.scaling.accounting import model_flops_per_token

pytestmark = pytest.mark.usefixtures("one_thread")


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
