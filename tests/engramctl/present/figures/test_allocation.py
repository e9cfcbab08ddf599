from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from engram.fitting.results import AllocationFit, Band, Interval, NearBest, Verdict
from engramctl.findings.fits import SweepFits
from engramctl.present.figures.allocation import allocation_figure
from engramctl.present.figures.save import save
from engramctl.results.trial_table import Series

RHO = "\N{GREEK SMALL LETTER RHO}"
RHOS = (0.0, 0.25, 0.5, 0.75, 1.0)
UNFITTED = SweepFits()
ONE = Series("3m", 8.2e12, "")


@pytest.fixture
def curve_of(make_row):
    """Rows of a U over rho with its minimum at `best`."""

    def rows(base=3.0, best=0.5, seeds=2, **identity):
        return [make_row(r, s, val_loss=base + 0.2 * (r - best) ** 2 + 0.001 * s, **identity) for r in RHOS for s in range(seeds)]

    return rows


@pytest.fixture
def draw(wanted):
    return lambda rows, missing=(), fits=UNFITTED: allocation_figure(wanted(rows, missing), fits)


def fitted(kind="interior", star=(0.5, 0.3, 0.6), base=3.0):
    x = np.linspace(0, 1, 51)
    loss = base + 0.2 * (x - star[0]) ** 2
    nowhere = Interval(*[float("nan")] * 3)
    verdict = Verdict(kind, "In words.", 0.01, 0.01, 0, ())
    best = Interval(base, base - 0.01, base + 0.01)
    band, at = Band(x, loss, loss - 0.01, loss + 0.01), Interval(*star)
    near = NearBest(0.005, max(star[0] - 0.15, 0), min(star[0] + 0.15, 1), 0.8, 0.01, Band(x, loss - base, loss - base, loss - base + 0.01))
    return AllocationFit("quadratic", {}, 0.01, 2, at, near, at, best, nowhere, nowhere, band, verdict)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))).replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_one_curve_without_a_fit(curve_of, draw):
    figure = draw(curve_of())
    (axes,) = figure.axes
    text = words(figure)
    assert f"min 3.000 at {RHO} = 0.50" in text
    assert "3m, 8.2×10¹² FLOPs, 2 seeds" in text
    assert f"{RHO}: share of inactive parameters in routed experts" in text
    assert "validation loss (nats per token)" in text
    assert "paper: 0.75" in text
    assert "one seed" not in text
    assert axes.get_xlim()[0] <= 0
    assert axes.get_xlim()[1] >= 1


def test_a_fit_is_drawn_with_its_band_its_bar_and_its_verdict(curve_of, draw):
    figure = draw(curve_of(), fits=SweepFits(allocation={ONE: fitted()}))
    (axes,) = figure.axes
    text = words(figure)
    assert "interior minimum 0.50 (0.30\N{EN DASH}0.60)" in text
    assert "fit, 95 % band" in text
    assert "within 0.005 nats: 0.35\N{EN DASH}0.65" in text
    assert "within 0.005 nats" in text.splitlines()
    assert any(list(line.get_xdata()) == [0.35, 0.65] for line in axes.get_lines())
    assert "mean over seeds" not in text
    assert any(len(line.get_xdata()) == 51 for line in axes.get_lines())
    assert any(list(line.get_xdata()) == [0.3, 0.6] for line in axes.get_lines())
    # The band stays inside the axes, and the bar below it.
    low, high = axes.get_ylim()
    assert low < 2.99 - 0.04 * (high - low)
    assert high > 3.05 + 0.01


@pytest.mark.parametrize(
    ("kind", "star", "text"),
    [
        ("not-distinguishable", (0.5, 0.0, 1.0), f"not distinguishable from {RHO} = 1"),
        ("memory-helps", (0.4, 0.0, 0.7), f"no rise shown towards {RHO} = 0"),
        ("memory-helps", (0.0, 0.0, 0.2), f"lowest at {RHO} = 0, minimum up to 0.20"),
        ("experts-help", (1.0, 0.8, 1.0), f"lowest at {RHO} = 1, minimum from 0.80"),
        ("too-few-points", (0.5, 0.3, 0.6), "too few points for a curve"),
    ],
)
def test_verdicts_are_in_the_panel(curve_of, draw, kind, star, text):
    figure = draw(curve_of(), fits=SweepFits(allocation={ONE: fitted(kind, star)}))
    assert text in words(figure)
    # Hollow where a minimum is not shown.
    bar = next(line for line in figure.axes[0].get_lines() if list(line.get_xdata()) == [star[0]] and line.get_transform() is not None)
    assert bar.get_markerfacecolor() == "white"


def test_every_seed_is_a_point(curve_of, draw):
    (axes,) = draw(curve_of(seeds=3)).axes
    assert any(len(line.get_xdata()) == 15 for line in axes.get_lines())


def test_one_seed_is_called_noise_and_an_end_is_not_a_minimum(curve_of, draw):
    text = words(draw(curve_of(best=1.0, seeds=1)))
    assert "one seed: differences between neighbours may be noise" in text
    assert f"lowest 3.000 at {RHO} = 1.00" in text
    assert "min " not in text


def test_near_curves_share_axes_and_far_ones_do_not(curve_of, draw):
    near = draw(curve_of() + curve_of(base=3.02, budget=2e13))
    assert len(near.axes) == 1
    styles = {(line.get_color(), line.get_linestyle()) for line in near.axes[0].get_lines() if len(line.get_xdata()) == len(RHOS)}
    assert len({color for color, _ in styles}) == len({style for _, style in styles}) == 2
    assert len(draw(curve_of() + curve_of(base=2.5, budget=2e13)).axes) == 2


def test_a_big_sweep_gets_a_panel_for_each_series(curve_of, draw):
    rows = [row for i, size in enumerate(("3m", "10m", "30m")) for b in (1e12, 2e12) for row in curve_of(base=3 - i, size=size, budget=b)]
    assert len(draw(rows).axes) == 6


def test_variants_are_series(curve_of, draw):
    rows = curve_of(variant="engram") + curve_of(base=3.02, variant="value")
    assert {"3m, 8.2×10¹² FLOPs, engram, 2 seeds", "3m, 8.2×10¹² FLOPs, value, 2 seeds"} <= set(words(draw(rows)).splitlines())


def test_trials_without_a_loss_are_shown(curve_of, draw, make_row):
    rows = [row for row in curve_of() if row["rho"] not in (0.25, 0.75)]
    rows += [make_row(0.25, 0, status="diverged"), make_row(0.25, 1, status="diverged"), make_row(0.75, 0, status="failed")]
    figure = draw(rows, [make_row(0.75, 1)])
    text = words(figure)
    assert all(word in text for word in ("diverged", "failed", "missing"))
    marks = {str(line.get_marker()): list(line.get_xdata()) for line in figure.axes[0].get_lines()}
    assert marks["x"] == [0.25]
    assert marks["$!$"] == marks["$?$"] == [0.75]
    assert "2" in text.splitlines()
    # Nothing is drawn through a rho that is not known.
    mean = next(line for line in figure.axes[0].get_lines() if line.get_marker() == "_")
    assert np.isnan(mean.get_ydata()).tolist() == [False, True, False, True, False]


def test_a_series_that_has_not_begun_has_its_panel(curve_of, draw, make_row):
    figure = draw(curve_of(), [make_row(r, budget=2e13) for r in RHOS])
    assert "3m, 2×10¹³ FLOPs, 0 seeds" in words(figure)


def test_legend_names_only_what_is_drawn(curve_of, draw):
    assert not any(word in words(draw(curve_of())) for word in ("diverged", "failed", "missing", "fit"))


def test_a_single_rho_and_no_finished_trial_can_be_drawn(draw, make_row, tmp_path):
    save(draw([make_row(0.5)]), tmp_path, "one")
    save(draw([make_row(0.5, status="failed")]), tmp_path, "none")


def test_nothing_is_clipped_and_no_legend_overlaps_axes(curve_of, draw, tmp_path):
    both = SweepFits(allocation={ONE: fitted(), Series("3m", 2e13, ""): fitted("not-distinguishable", base=3.02)})
    for rows, fits in ((curve_of(), UNFITTED), (curve_of() + curve_of(base=3.02, budget=2e13), both)):
        figure = draw(rows, fits=fits)
        save(figure, tmp_path, "figure", ["png"])
        renderer = figure.canvas.get_renderer()
        legends = [legend.get_window_extent(renderer) for legend in figure.findobj(Legend)]
        for box in [*legends, *(axes.get_tightbbox(renderer) for axes in figure.axes)]:
            assert box.x0 >= -1
            assert box.x1 <= figure.bbox.x1 + 1
            assert box.y1 <= figure.bbox.y1 + 1
        assert not any(one.overlaps(other) for one, other in pairwise(legends))
        assert not any(box.overlaps(axes.get_tightbbox(renderer)) for box in legends for axes in figure.axes)


def test_files_are_the_same_bytes_every_time(curve_of, draw, tmp_path):
    fits = SweepFits(allocation={ONE: fitted()})
    first = save(draw(curve_of(), fits=fits), tmp_path / "a", "allocation")
    second = save(draw(curve_of(), fits=fits), tmp_path / "b", "allocation")
    assert [p.name for p in first] == ["allocation.png", "allocation.svg", "allocation.pdf"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(p.name for p in first)
    # A file does not depend on which others are written.
    (alone,) = save(draw(curve_of(), fits=fits), tmp_path / "c", "allocation", ["svg"])
    assert alone.read_bytes() == first[1].read_bytes()
