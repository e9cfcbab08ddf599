import pytest
import torch

from engram.benchmarks.parts import PARTS, PER_STEP, calls_per_step, capture, part_cases
from engram.benchmarks.shapes import dense_twin
from engram.benchmarks.timing import interleave
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
