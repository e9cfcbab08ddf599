from pathlib import Path

import pytest

from engram.errors import UserError
from engram.scaling.accounting import count_parameters
from engram.scaling.ladder import LADDER
from engramctl.sweep.build import expand, flops_per_step
from engramctl.sweep.files import load_sweep
from engramctl.sweep.spec import declared_budget

GPU = "gpu-muon-2026"
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


def test_tokens_for_each_parameter_are_flops_of_each_size(tmp_path):
    spec = load_sweep(write(tmp_path, MINIMAL), {"sizes": ["1m", "3m"], "budgets": ["20tpp", "1e12"]})
    assert spec.budgets == ("20tpp", "1e12")
    found = trials(spec, [declared_budget(budget) for budget in spec.budgets])
    budgets = {name: {trial.budget_flops for trial in found if trial.size == name} for name in spec.sizes}
    for name in spec.sizes:
        active = count_parameters(next(trial.model for trial in found if trial.size == name and trial.rho == 1)).p_active
        assert budgets[name] == {float(f"{6 * active**2 * 20:.3g}"), 1e12}
        tokens = {t.train.tokens for t in found if t.size == name and t.budget_flops != 1e12}
        assert tokens.pop() == pytest.approx(20 * active, rel=0.01)
        assert not tokens


def test_a_recipe_by_name(tmp_path):
    spec, on_gpu = (load_sweep(write(tmp_path, MINIMAL), {"sizes": ["10m"], "budgets": ["1e14"]} | more) for more in ({}, {"recipe": GPU}))
    (usual, *_), (large, *_) = trials(spec, [1e14]), trials(on_gpu, [1e14])
    assert (usual.train.tokens_per_step, large.train.tokens_per_step) == (4096, 32_768)
    assert large.train.learning_rate == pytest.approx(usual.train.learning_rate * 8**0.5)
    assert "recipe" not in spec.fixed, "sweeps that were begun before there were recipes go on"
    assert on_gpu.fixed["recipe"] == GPU
    with pytest.raises(UserError, match=r"recipe: 'other' is not allowed: paper-muon-2026 or gpu-muon-2026 is expected"):
        load_sweep(write(tmp_path, MINIMAL + "recipe: other\n"), {})


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
