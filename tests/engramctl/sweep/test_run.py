import pytest

from engram.errors import UserError
from engramctl.cluster.session import Resources
from engramctl.sweep.build import expand
from engramctl.sweep.devices import check_devices
from engramctl.sweep.files import find_sweep, load_sweep
from engramctl.sweep.run import longest_first


def test_long_trials_start_first():
    spec = load_sweep(find_sweep("smoke"), {"budgets": ["1e11", "3e11", "2e11"], "seeds": 2})
    trials = longest_first(expand(spec, [1e11, 3e11, 2e11], 512, "c", "t"))
    assert [(t.budget_flops, t.seed, t.rho) for t in trials] == [
        (budget, seed, rho) for budget in (3e11, 2e11, 1e11) for seed in (0, 1) for rho in (0, 0.5, 1)
    ]


def test_a_numbered_device_is_a_single_one(fill, make_row, tmp_path):
    store = fill(tmp_path, [make_row()])
    with pytest.raises(UserError, match="--device cuda:1 is a single one: with --devices-per-trial 2 use cuda"):
        check_devices(Resources("cuda:1", 1, None, 2), store, [])
