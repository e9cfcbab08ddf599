"""Documents of which training has a part, and those of which it has none, apart."""

import numpy as np
import pytest

from engramctl.findings.fits import sweep_fits
from engramctl.present.json import fits_as_json
from engramctl.present.report.fit_tables import fit_rows
from engramctl.present.verdicts import answers
from engramctl.results.sweep_results import SweepResults

RHOS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CLEAN = 40


@pytest.fixture
def fits(fill, make_row, tmp_path):
    """Fits of a sweep whose gain is 0.09 on clean documents and larger by `more` on overlapping ones; None: overlap is not known."""

    def run(more, overlapping=30, overlap=0.4):
        rng = np.random.default_rng(0)
        rows = [make_row(rho, seed) for rho in RHOS for seed in (0, 1, 2)]
        store = fill(tmp_path, rows)
        n = CLEAN + overlapping
        tokens = rng.integers(50, 200, n)
        shares = None if overlap is None else np.where(np.arange(n) < CLEAN, 0.0, overlap)
        gains = 0.25 * np.where(np.arange(n) < CLEAN, 1, 1 + more / 0.09)
        hardness = rng.normal(0, 0.3, n)
        for row in rows:
            losses = 3 + gains * (row["rho"] - 0.4) ** 2 + hardness + rng.normal(0, 0.002) + rng.normal(0, 0.02, n)
            documents = {
                "document": [f"{i:04x}" for i in range(n)],
                "n_tokens": tokens.tolist(),
                "n_bytes": (3 * tokens).tolist(),
                "loss_sum": (losses * tokens).tolist(),
                "overlap": [None] * n if shares is None else shares.tolist(),
            }
            store.write_trial(row | {"sweep": "allocation"}, None, documents)
        return sweep_fits(SweepResults.of_store(store))

    return run


def test_gains_that_differ_are_told_apart(fits):
    found = fits(0.04)
    ((key, apart),) = found.by_overlap.items()
    assert (apart.n_clean, apart.n_overlapping) == (CLEAN, 30)
    assert apart.clean.gain.low <= 0.09 <= apart.clean.gain.high
    assert apart.overlapping.gain.low <= 0.13 <= apart.overlapping.gain.high
    assert apart.difference.low <= 0.04 <= apart.difference.high
    assert apart.difference.low > 0
    ((_, text),) = answers(found)
    assert "Documents that share text with training gain +0.04" in text
    assert "on the 40 clean ones" in text
    assert fits_as_json(found, bands=False)["by_overlap"][0]["n_clean"] == CLEAN
    assert {"allocation, clean documents", "allocation, overlapping less clean"} <= set(fit_rows(found)["fit"])
    assert key in found.allocation


@pytest.mark.parametrize(("more", "overlapping", "overlap"), [(0.0, 30, 0.4), (0.04, 5, 0.4), (0.04, 30, 0.01), (0.04, 30, None)])
def test_nothing_is_said_where_nothing_differs_or_is_known(fits, more, overlapping, overlap):
    found = fits(more, overlapping, overlap)
    assert not found.by_overlap
    assert "share text with training" not in next(answers(found))[1]
