"""The reference results in the repository can be read and say what the README says."""

from pathlib import Path

from engramctl.findings.fits import sweep_fits
from engramctl.results.sweep_results import SweepResults

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


def test_the_reference_sweep_is_whole():
    sweep = SweepResults.open(REFERENCE, "laptop", columns=None)
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


def test_the_reference_sweep_shows_what_the_readme_says():
    fits = sweep_fits(SweepResults.open(REFERENCE, "laptop"))
    small, middle, large = (fit for _, fit in sorted(fits.allocation.items(), key=lambda item: item[0].budget_flops))
    assert (small.verdict.kind, middle.verdict.kind, large.verdict.kind) == ("memory-helps", "interior", "interior")
    readme = (REFERENCE.parents[1] / "README.md").read_text()
    for fit in (middle, large):
        assert f"{fit.rho_star.estimate:.2f} ({fit.rho_star.low:.2f} to {fit.rho_star.high:.2f})" in readme
    assert f"{middle.gain.estimate:.3f} and {large.gain.estimate:.3f} nats below" in readme
    assert large.rho_star.high < 0.75
