from pathlib import Path

import pytest

from engram.errors import UserError
from engram.scaling.accounting import count_parameters
from engram.scaling.ladder import LADDER
from engramctl.sweep.build import expand, flops_per_step
from engramctl.sweep.files import load_sweep

MINIMAL = """
question: what?
sizes: [1m]
rhos: [0, 1]
budgets: [1e12]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def trials(spec, budgets=(1e12,), corpus="c" * 64):
    return expand(spec, budgets, 512, corpus, "t" * 64)


def test_expansion_is_the_product_of_the_axes(tmp_path):
    spec = load_sweep(write(tmp_path, MINIMAL), {"seeds": 3, "rhos": [0, 0.25, 1], "sizes": ["1m", "3m"]})
    found = trials(spec, (1e12, 3e12))
    assert len(found) == len({t.id for t in found}) == 2 * 2 * 3 * 3
    assert {(t.size, t.rho, t.seed, t.budget_flops) for t in found} == {
        (size, rho, seed, budget) for size in ("1m", "3m") for rho in (0, 0.25, 1) for seed in range(3) for budget in (1e12, 3e12)
    }


def test_all_rhos_train_for_the_same_steps_within_the_budget(tmp_path):
    spec = load_sweep(write(tmp_path, MINIMAL), {"rhos": [0, 0.3, 0.6, 1]})
    found = trials(spec)
    assert len({t.train.steps for t in found}) == 1
    for t in found:
        flops = 6 * count_parameters(t.model).p_active * t.train.tokens
        assert 0.98e12 < flops < 1.005e12


def test_an_id_is_what_the_trial_is(tmp_path):
    path = write(tmp_path, MINIMAL)
    ids = [t.id for t in trials(load_sweep(path, {}))]
    assert ids == [t.id for t in trials(load_sweep(path, {"seeds": 2}))][:2]
    assert not set(ids) & {t.id for t in trials(load_sweep(path, {}), corpus="d" * 64)}
    path.write_text(MINIMAL + "train: {weight_decay: 0.2}\n")
    assert not set(ids) & {t.id for t in trials(load_sweep(path, {}))}


def test_a_budget_below_one_step(tmp_path):
    spec = load_sweep(write(tmp_path, MINIMAL), {})
    step = flops_per_step(spec, LADDER["1m"], 512)
    assert {t.train.steps for t in trials(spec, (step * 1.01,))} == {1}
    with pytest.raises(UserError, match="too small for one step of size 1m"):
        trials(spec, (step * 0.99,))
