"""The reference results in the repository can be read and say what the README says."""

from pathlib import Path

import pytest

from engramctl.findings.fits import sweep_fits
from engramctl.results.sweep_results import SweepResults

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


@pytest.mark.parametrize("name", ["python", "prose", "laptop"])
def test_the_reference_sweep_is_whole(name):
    sweep = SweepResults.open(REFERENCE, name, columns=None)
    store = sweep.store
    assert sweep.missing.empty
    assert set(sweep.trials["status"]) == {"finished"}
    for trial in sweep.trials["trial_id"]:
        assert len(store.read_curve(trial)) > 50
        assert len(store.read_documents(trial)) > 50
    for column in ("p_total", "p_active"):
        assert sweep.trials[column].max() / sweep.trials[column].min() <= 1.005
    assert sweep.trials.groupby(["budget_flops", "rho"])["seed"].nunique().min() == 3
    (sha,) = sweep.trials["git_sha"].unique()
    assert len(sha) == 40  # of committed code: nothing after it


@pytest.mark.parametrize("name", ["python", "prose"])
def test_validation_text_is_clean(name):
    """Tokens of the documents that lie in a 32-gram of training, over all."""
    sweep = SweepResults.open(REFERENCE, name)
    documents = sweep.store.read_documents(sweep.trials["trial_id"].iloc[0])
    assert (documents["overlap"] * documents["n_tokens"]).sum() / documents["n_tokens"].sum() < 0.01


def test_the_reference_sweeps_show_what_the_readme_says():
    readme = " ".join((REFERENCE.parents[1] / "README.md").read_text().split())
    fits = {name: sweep_fits(SweepResults.open(REFERENCE, name)) for name in ("python", "prose", "laptop")}
    by_budget = {
        name: [fit for _, fit in sorted(fit.allocation.items(), key=lambda item: item[0].budget_flops)] for name, fit in fits.items()
    }
    small, middle, large = by_budget["python"]
    assert (small.verdict.kind, middle.verdict.kind, large.verdict.kind) == ("memory-helps", "interior", "interior")
    stars = [f"{fit.rho_star.estimate:.2f} ({fit.rho_star.low:.2f} to {fit.rho_star.high:.2f})" for fit in (middle, large)]
    ranges = [f"from {fit.near_best.low:.2f} to {fit.near_best.high:.2f}" for fit in (middle, large)]
    assert " and ".join(stars) in readme
    assert ", and ".join(ranges) in readme
    assert f"{middle.gain.estimate:.3f} and {large.gain.estimate:.3f} nats below" in readme
    prose, old = by_budget["prose"][-1], by_budget["laptop"][-1]
    assert prose.verdict.kind == "memory-helps"
    assert f"the best point lies at {prose.rho_star.estimate:.2f}, {prose.gain.estimate:.3f} nats below" in readme
    assert f"the minimum at {old.rho_star.estimate:.2f} and the gain at {old.gain.estimate:.3f} nats" in readme
