import pandas as pd
import pytest

from engram.errors import UserError
from engramctl.results.sweep_results import SweepResults, require_one_trial_each


def test_the_manifest_decides_what_is_compared(fill, make_row, tmp_path):
    rows = [make_row(0.2), make_row(0.4, status="diverged"), make_row(0.9, learning_rate=1.0)]
    store = fill(tmp_path, rows, [make_row(0.6)])
    store.write_manifest(store.read_manifest().without({rows[2]["trial_id"]}))
    opened = SweepResults.open(tmp_path, "allocation")
    assert opened.trials["rho"].tolist() == sorted([0.2, 0.4], key=lambda rho: opened.trials["rho"].tolist().index(rho))
    assert set(opened.trials["rho"]) == {0.2, 0.4}
    assert opened.missing["rho"].tolist() == [0.6]
    assert opened.left_out["rho"].tolist() == [0.9]
    assert opened.finished["rho"].tolist() == [0.2]
    assert opened.unfinished[["status", "rho"]].to_numpy().tolist() == [["missing", 0.6], ["diverged", 0.4]]
    assert opened.wanted["rho"].tolist() == [0.2, 0.4, 0.6], "in the manifest's order"


def test_without_a_manifest_every_row_is_wanted(fill, make_row, tmp_path):
    store = fill(tmp_path, [make_row(0.2), make_row(0.4), make_row(0.9)])
    store.manifest.unlink()
    assert len(SweepResults.open(tmp_path, "allocation").trials) == 3


def test_a_sweep_that_is_not_there_is_named(fill, make_row, tmp_path):
    fill(tmp_path, [make_row(0.2)])
    with pytest.raises(UserError, match=r"sweep 'other' has no results in .*; there are: allocation"):
        SweepResults.open(tmp_path, "other")


def test_without_a_finished_trial_the_error_says_what_there_is(fill, make_row, tmp_path):
    fill(tmp_path, [make_row(0.2, status="failed")], [make_row(0.4)])
    with pytest.raises(
        UserError, match=r"has no finished trial \(1 missing, 1 failed\); `engramctl status allocation --results .*` tells more"
    ):
        SweepResults.open(tmp_path, "allocation").require_finished()


def test_a_sweep_that_varies_something_else_is_refused(make_row):
    rows = [make_row(0.5, learning_rate=rate) for rate in (1e-3, 2e-3)]
    with pytest.raises(UserError, match=r"2 finished trials at size 3m, .*rho 0.50, seed 0.*differ in learning_rate"):
        require_one_trial_each(pd.DataFrame(rows))
    require_one_trial_each(pd.DataFrame(rows[:1]))


def test_slots_of_missing_trials_come_from_their_rho(wanted, make_row):
    def at(slots, seed):
        rho = 700_000 / (700_000 + 8 * slots)
        return make_row(rho, seed, variant="engram", n_slots=slots, p_engram=8 * slots, p_sparse=700_000 + 8 * slots)

    absent = [at(4000, 2), *(at(16_000, seed) for seed in (0, 1, 2))]
    trials = wanted([at(slots, seed) for slots in (0, 4000) for seed in (0, 1)], absent, slots=[0, 4000, 16_000])
    assert trials.loc[trials["status"] == "missing", "n_slots"].tolist() == [4000, 16_000, 16_000, 16_000]
