import numpy as np
import pytest

from engram.fitting.memory_law import fit_memory
from engramctl.findings.fits import SweepFits
from engramctl.present.report.fit_tables import fit_rows, fit_tables
from engramctl.present.tables.fits import print_fits
from engramctl.present.verdicts import short_memory
from engramctl.results.trial_table import Series
from tests.engram.fitting.conftest import make_sweep

SLOTS = np.geomspace(1e3, 1e6, 7)
CURVES = {"floor": lambda x: -0.2 * np.minimum(np.log10(x / 1e3), 1.65), "power-law": lambda x: 2 * x**-0.3}


@pytest.fixture(params=CURVES)
def fits(request):
    """Of a curve that is one of the paper's two laws, and of one that is neither."""
    law = fit_memory(make_sweep(CURVES[request.param], x=SLOTS, noise=0.0005, between=0.001), replicates=100)
    assert law.form == request.param
    return SweepFits(("memory",), memory={Series("3m", 8.2e12, "engram"): law})


def test_the_report_gives_the_change_that_supposes_no_form_first(fits):
    (law,) = fits.memory.values()
    (table,) = fit_tables(fits)
    assert table.rows[0][1:4] == ("any form", "", "for 10x slots")
    assert table.rows[0][4].startswith(f"{law.per_tenfold.estimate:.4g}".replace("-", table.rows[0][4][0]))
    assert {row[1] for row in table.rows[1:]} == {"log-linear", "power-law"}
    assert {row[2] for row in table.rows[1:]} == {f"{law.probability[form]:.0%}" for form in ("log-linear", "power-law")}


def test_the_numbers_of_the_report_are_kept(fits):
    (law,) = fits.memory.values()
    rows = fit_rows(fits)
    (kept,) = rows[rows["quantity"] == "per_tenfold"].itertuples()
    assert (kept.fit, kept.estimate, kept.low) == ("memory", law.per_tenfold.estimate, law.per_tenfold.low)
    assert set(rows["fit"]) == {"memory", "memory log-linear", "memory power-law"}


def test_a_terminal_and_a_legend_give_the_same_change(fits, capsys):
    from rich.console import Console

    (law,) = fits.memory.values()
    print_fits(Console(width=140), fits)
    shown = capsys.readouterr().out
    assert f"{law.form} {law.probability[law.form]:.0%}" in shown
    assert f"{law.per_tenfold.estimate:+.4f} ({law.per_tenfold.low:+.4f}, {law.per_tenfold.high:+.4f})" in shown
    assert short_memory(law).startswith(f"{law.per_tenfold.estimate:+.3f}")
