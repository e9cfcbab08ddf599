from dataclasses import replace

import pytest

from engram.config.training import AdamWConfig, MuonConfig, TrainConfig, WSDSchedule
from engram.errors import UserError
from engram.scaling.ladder import LADDER
from engram.scaling.recipe import DEFAULT_RECIPE


@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize(("kind", "config"), [("adamw", AdamWConfig()), ("muon", MuonConfig())])
def test_every_size_has_defaults_that_need_only_steps(name, kind, config):
    train = TrainConfig(steps=10, **DEFAULT_RECIPE.train_defaults(LADDER[name], kind))
    assert train.optimizer == config
    assert (train.weight_decay, train.table_lr_multiplier, train.schedule) == (0.1, 5.0, WSDSchedule(warmup_fraction=0.03))


def test_the_table_has_the_sizes_of_the_ladder_and_no_others():
    assert list(DEFAULT_RECIPE.sequence_and_batch) == list(LADDER)
    assert DEFAULT_RECIPE.train_defaults(LADDER["3m"])["seq_len"] == 128
    assert DEFAULT_RECIPE.train_defaults(LADDER["3m"])["batch_size"] == 16


def test_larger_models_take_longer_sequences_and_larger_steps():
    sizes = list(DEFAULT_RECIPE.sequence_and_batch.values())
    assert [seq_len for seq_len, _ in sizes] == sorted(seq_len for seq_len, _ in sizes)
    assert [seq_len * batch for seq_len, batch in sizes] == sorted(seq_len * batch for seq_len, batch in sizes)


@pytest.mark.parametrize("kind", DEFAULT_RECIPE.rate_at_width)
def test_the_rate_goes_through_its_anchors(kind):
    """Ours at d = 96, 4e-4 at d = 2560 (paper)."""
    assert DEFAULT_RECIPE.learning_rate(LADDER["3m"], kind) == pytest.approx(DEFAULT_RECIPE.rate_at_width[kind])
    assert DEFAULT_RECIPE.learning_rate(replace(LADDER["3m"], width=2560), kind) == pytest.approx(4e-4)
    rates = [DEFAULT_RECIPE.learning_rate(size, kind) for size in LADDER.values()]
    assert rates == sorted(rates, reverse=True)


def test_an_unknown_optimizer_is_the_users_mistake():
    with pytest.raises(UserError, match=r"optimizer kind 'sgd' is unknown; there are adamw, muon"):
        DEFAULT_RECIPE.train_defaults(LADDER["1m"], "sgd")


def test_the_default_kind():
    assert DEFAULT_RECIPE.train_defaults(LADDER["1m"]) == DEFAULT_RECIPE.train_defaults(LADDER["1m"], DEFAULT_RECIPE.optimizer)
