"""The reference results in the repository can be read and say what the README says."""

from pathlib import Path

from engramctl.fits import sweep_fits
from engramctl.reading import read_wanted
from engramctl.store import Store
from engramctl.summary import coverage

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


def test_the_reference_sweep_is_whole():
    store = Store.open_existing(REFERENCE, "laptop")
    covered = coverage(store.read_trials(), store.read_manifest())
    assert covered.missing.empty
    assert set(covered.trials["status"]) == {"finished"}
    for trial in covered.trials["trial_id"]:
        assert len(store.read_curve(trial)) > 50
        assert len(store.read_documents(trial)) > 50
    for column in ("p_total", "p_active"):
        assert covered.trials[column].max() / covered.trials[column].min() <= 1.005
    assert covered.trials.groupby(["budget_flops", "rho"])["seed"].nunique().min() == 3
    (sha,) = covered.trials["git_sha"].unique()
    assert len(sha) == 40  # of committed code: nothing after it


def test_the_reference_sweep_shows_what_the_readme_says():
    read = read_wanted(REFERENCE, "laptop")
    fits = sweep_fits(read.store, read.wanted)
    small, middle, large = (fit for _, fit in sorted(fits.allocation.items(), key=lambda item: item[0].budget_flops))
    assert (small.verdict.kind, middle.verdict.kind, large.verdict.kind) == ("monotone", "interior", "interior")
    readme = (REFERENCE.parents[1] / "README.md").read_text()
    for fit in (middle, large):
        assert f"{fit.rho_star.estimate:.2f} ({fit.rho_star.low:.2f} to {fit.rho_star.high:.2f})" in readme
    assert f"{middle.gain.estimate:.3f} and {large.gain.estimate:.3f} nats below" in readme
    assert large.rho_star.high < 0.75
