import subprocess
import sys
from dataclasses import replace

import pytest

from engram import recipe
from engram.errors import UserError
from engram.ladder import LADDER
from engram.recipe import learning_rate, train_defaults
from engram.training_config import AdamWConfig, MuonConfig, TrainConfig, WSDSchedule


@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize(("kind", "config"), [("adamw", AdamWConfig()), ("muon", MuonConfig())])
def test_every_size_has_defaults_that_need_only_steps(name, kind, config):
    train = TrainConfig(steps=10, **train_defaults(LADDER[name], kind))
    assert train.optimizer == config
    assert (train.weight_decay, train.table_lr_multiplier, train.schedule) == (0.1, 5.0, WSDSchedule(warmup_fraction=0.03))


def test_the_table_has_the_sizes_of_the_ladder_and_no_others():
    assert list(recipe.SEQUENCE_AND_BATCH) == list(LADDER)
    assert train_defaults(LADDER["3m"])["seq_len"] == 128
    assert train_defaults(LADDER["3m"])["batch_size"] == 16


def test_larger_models_take_longer_sequences_and_larger_steps():
    sizes = list(recipe.SEQUENCE_AND_BATCH.values())
    assert [seq_len for seq_len, _ in sizes] == sorted(seq_len for seq_len, _ in sizes)
    assert [seq_len * batch for seq_len, batch in sizes] == sorted(seq_len * batch for seq_len, batch in sizes)


@pytest.mark.parametrize("kind", recipe.RATE_AT_WIDTH)
def test_the_rate_goes_through_its_anchors(kind):
    """Ours at d = 96, 4e-4 at d = 2560 (paper)."""
    assert learning_rate(LADDER["3m"], kind) == pytest.approx(recipe.RATE_AT_WIDTH[kind])
    assert learning_rate(replace(LADDER["3m"], width=2560), kind) == pytest.approx(4e-4)
    rates = [learning_rate(size, kind) for size in LADDER.values()]
    assert rates == sorted(rates, reverse=True)


def test_an_unknown_optimizer_is_the_users_mistake():
    with pytest.raises(UserError, match=r"optimizer kind 'sgd' is unknown; there are adamw, muon"):
        train_defaults(LADDER["1m"], "sgd")


def test_the_default_kind():
    assert train_defaults(LADDER["1m"]) == train_defaults(LADDER["1m"], recipe.DEFAULT_OPTIMIZER)


def test_planning_needs_no_torch():
    code = "import sys, engram.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
