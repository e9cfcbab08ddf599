import pytest

from engram.benchmarks.shapes import STUDY, dense_twin, named_size, steps, with_longer_tables
from engram.errors import UserError
from engram.scaling.accounting import count_parameters, table_rows
from engram.scaling.allocation import TOLERANCE, allocate, baseline, memory_template, spread
from engram.scaling.ladder import LADDER

SIZES = {STUDY.name: STUDY, **LADDER}


def sparse(size, rho, vocab_size=4096):
    return allocate(baseline(size, vocab_size), memory_template(size), rho)


def test_the_study():
    model = sparse(STUDY, 0.8)
    assert (model.moe.n_routed_experts, model.moe.top_k, model.moe.expert_width) == (81, 6, 24)


def test_sizes_by_name():
    assert named_size("study") == STUDY
    assert named_size("3m") == LADDER["3m"]
    with pytest.raises(UserError, match="size '7m' is unknown; there are study, 1m, 3m"):
        named_size("7m")


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("rho", [0.8, 1.0])
def test_the_dense_twin_has_the_same_active_parameters_and_no_others(name, rho):
    model = sparse(SIZES[name], rho)
    twin = dense_twin(model)
    counts = count_parameters(twin)
    assert spread([counts.p_active, count_parameters(model).p_active]) <= TOLERANCE
    assert counts.p_total == counts.p_active
    assert twin.moe.dense_width % 2 == 0
    assert (twin.width, twin.n_layers, twin.vocab_size) == (model.width, model.n_layers, model.vocab_size)


@pytest.mark.parametrize("factor", [16, 256])
def test_longer_tables_change_nothing_else(factor):
    model = sparse(STUDY, 0.75)
    longer = with_longer_tables(model, factor)
    assert table_rows(longer.memory) == pytest.approx(factor * table_rows(model.memory), rel=0.02)  # primes, the next ones above
    before, after = count_parameters(model), count_parameters(longer)
    assert after.p_active == before.p_active
    assert after.p_total - after.memory_tables == before.p_total - before.memory_tables
    with pytest.raises(ValueError, match="no tables"):
        with_longer_tables(sparse(STUDY, 1.0), factor)


def test_training_of_the_study_is_that_of_the_size_it_resembles(setup):
    train = type(setup)(STUDY, "adamw", setup.corpus, setup.device).train
    assert (train.seq_len, train.batch_size, train.optimizer.kind, train.precision) == (128, 16, "adamw", "auto")
    with pytest.raises(UserError, match="optimizer kind 'sgd' is unknown"):
        _ = type(setup)(STUDY, "sgd", setup.corpus, setup.device).train


def test_a_trainer_goes_on_for_as_long_as_it_is_asked(setup, one_thread):
    trainer = setup.trainer(dense_twin(setup.sparse(0.8)))
    turn = steps(trainer)
    assert turn(0.0) > 0
    first = trainer.state.step
    assert first >= 1
    turn(0.05)
    assert trainer.state.step > first
    assert not trainer.done
