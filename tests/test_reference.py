"""The reference results in the repository can be read and say what the README says."""

from pathlib import Path

from engramctl.store import Store
from engramctl.summary import allocation_summary, coverage

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


def test_the_reference_sweep_is_whole_and_has_an_interior_minimum():
    store = Store.open_existing(REFERENCE, "allocation")
    covered = coverage(store.read_trials(), store.read_manifest())
    assert covered.missing.empty
    assert set(covered.trials["status"]) == {"finished"}
    for trial in covered.trials["trial_id"]:
        assert len(store.read_curve(trial)) > 100
        assert len(store.read_documents(trial)) > 50
    for column in ("p_total", "p_active"):
        assert covered.trials[column].max() / covered.trials[column].min() <= 1.005
    summary = allocation_summary(covered.trials)
    assert 0 < float(summary.loc[summary["is_minimum"], "rho"].iloc[0]) < 1
