import pandas as pd
import pytest

from engramctl.findings.allocation import allocation_summary, remarks


@pytest.fixture
def summarise(make_row):
    """Summary of (rho, seed, loss) triples of one size and budget."""
    return lambda points: allocation_summary(pd.DataFrame([make_row(rho, seed, val_loss=loss) for rho, seed, loss in points]))


def test_means_spread_and_minimum(summarise):
    summary = summarise([(0.0, 0, 3.3), (0.0, 1, 3.5), (0.5, 0, 3.0), (0.5, 1, 3.1), (1.0, 0, 3.2), (1.0, 1, 3.2)])
    assert summary["val_loss"].tolist() == pytest.approx([3.4, 3.05, 3.2])
    assert summary["val_loss_sd"].tolist() == pytest.approx([0.141421, 0.0707107, 0.0], abs=1e-6)
    assert summary["val_loss_min"].tolist() == [3.3, 3.0, 3.2]
    assert summary["val_loss_max"].tolist() == [3.5, 3.1, 3.2]
    assert summary["is_minimum"].tolist() == [False, True, False]
    assert summary["delta_rho1"].tolist() == pytest.approx([0.2, -0.15, 0.0])


def test_difference_to_rho_1_is_paired_by_seed(summarise):
    # Seed 1 is worse everywhere by 1; it is missing at rho = 1 and must not enter the difference.
    summary = summarise([(0.5, 0, 3.0), (0.5, 1, 4.0), (1.0, 0, 3.2)])
    assert summary["delta_rho1"].tolist() == pytest.approx([-0.2, 0.0])
    assert summary["delta_rho1_seeds"].tolist() == [1, 1]
    assert summarise([(0.5, 1, 3.0), (1.0, 0, 3.2)])["delta_rho1"].isna().tolist() == [True, False]


def test_trials_without_a_loss_count_but_do_not_weigh(make_row):
    rows = [make_row(0.5, 0, val_loss=3.0), make_row(0.5, 1, status="diverged"), make_row(1.0, 0, status="failed")]
    summary = allocation_summary(pd.DataFrame(rows))
    assert summary["n_seeds"].tolist() == [1, 0]
    assert summary["n_diverged"].tolist() == [1, 0]
    assert summary["n_failed"].tolist() == [0, 1]
    assert not summary["is_minimum"].any()


def test_series_are_apart_and_ordered_by_parameters_then_budget(make_row):
    rows = [make_row(r, size=s, budget=b) for r in (0.5, 1.0) for s in ("10m", "3m") for b in (9e12, 1e12)]
    summary = allocation_summary(pd.DataFrame(rows))
    assert list(summary.drop_duplicates(["size", "budget_flops"])[["size", "budget_flops"]].itertuples(index=False, name=None)) == [
        ("3m", 1e12), ("3m", 9e12), ("10m", 1e12), ("10m", 9e12),
    ]  # fmt: skip
    assert summary["is_minimum"].sum() == 4


def test_remarks(summarise):
    assert remarks(summarise([(r, s, (r - 0.5) ** 2) for r in (0.0, 0.4, 1.0) for s in (0, 1)])) == []
    assert remarks(summarise([(0.2, 0, 3.0), (0.2, 1, 3.0)])) == ["only rho = 0.20 has finished trials: there is no curve"]
    end = remarks(summarise([(0.2, s, 3.1) for s in (0, 1)] + [(0.9, s, 3.0) for s in (0, 1)]))
    assert end == ["no interior minimum shown: lowest mean at rho = 0.90, an end of 0.20 to 0.90"]
    assert any("one seed" in line for line in remarks(summarise([(0.0, 0, 3.2), (0.5, 0, 3.0), (1.0, 0, 3.1)])))
    assert any("same seeds" in line for line in remarks(summarise([(0.0, 0, 3.2), (0.5, 0, 3.0), (0.5, 1, 3.0), (1.0, 0, 3.1)])))


def test_no_trials_is_an_empty_summary(make_row):
    assert allocation_summary(pd.DataFrame([make_row()]).iloc[:0]).empty
