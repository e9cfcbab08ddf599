import pandas as pd
import pytest
from matplotlib.figure import Figure

from engram.errors import UserError
from engramctl.figures import allocation_figure, save
from engramctl.summary import IDENTITY

NOTHING = pd.DataFrame(columns=IDENTITY)
RHO = "\N{GREEK SMALL LETTER RHO}"
RHOS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture
def curve_of(make_row):
    """Rows of a U over rho with its minimum at `best`."""

    def rows(base=3.0, best=0.5, seeds=2, **identity):
        return [make_row(r, s, val_loss=base + 0.2 * (r - best) ** 2 + 0.001 * s, **identity) for r in RHOS for s in range(seeds)]

    return rows


def draw(rows, missing=()):
    return allocation_figure(pd.DataFrame(rows), pd.DataFrame(missing, columns=IDENTITY) if missing else NOTHING)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_one_curve(curve_of):
    figure = draw(curve_of())
    (axes,) = figure.axes
    text = words(figure)
    assert f"min 3.000 at {RHO} = 0.50" in text
    assert "3m, 8.2e12 FLOPs, 2 seeds" in text
    assert f"{RHO}: share of inactive parameters in routed experts" in text
    assert "validation loss (nats per token)" in text
    assert "paper's optimum" in text
    assert "one seed" not in text
    assert axes.get_xlim()[0] <= 0
    assert axes.get_xlim()[1] >= 1


def test_every_seed_is_a_point(curve_of):
    (axes,) = draw(curve_of(seeds=3)).axes
    assert any(len(line.get_xdata()) == 15 for line in axes.get_lines())


def test_one_seed_is_called_noise_and_an_end_is_not_a_minimum(curve_of):
    text = words(draw(curve_of(best=1.0, seeds=1)))
    assert "one seed: differences between neighbours may be noise" in text
    assert f"lowest 3.000 at {RHO} = 1.00" in text
    assert "min " not in text


def test_near_curves_share_axes_and_far_ones_do_not(curve_of):
    near = draw(curve_of() + curve_of(base=3.02, budget=2e13))
    assert len(near.axes) == 1
    styles = {(line.get_color(), line.get_linestyle()) for line in near.axes[0].get_lines() if len(line.get_xdata()) == len(RHOS)}
    assert len({color for color, _ in styles}) == len({style for _, style in styles}) == 2
    assert len(draw(curve_of() + curve_of(base=2.5, budget=2e13)).axes) == 2


def test_a_big_sweep_gets_a_panel_for_each_series(curve_of):
    rows = [row for i, size in enumerate(("3m", "10m", "30m")) for b in (1e12, 2e12) for row in curve_of(base=3 - i, size=size, budget=b)]
    assert len(draw(rows).axes) == 6


def test_trials_without_a_loss_are_shown(curve_of, make_row):
    rows = [row for row in curve_of() if row["rho"] not in (0.25, 0.75)]
    rows += [make_row(0.25, 0, status="diverged"), make_row(0.25, 1, status="diverged"), make_row(0.75, 0, status="failed")]
    figure = draw(rows, [make_row(0.75, 1)])
    text = words(figure)
    assert all(word in text for word in ("diverged", "failed", "missing"))
    marks = {str(line.get_marker()): list(line.get_xdata()) for line in figure.axes[0].get_lines()}
    assert marks["x"] == [0.25]
    assert marks["$!$"] == marks["$?$"] == [0.75]
    # Nothing is drawn through a rho that is not known.
    mean = next(line for line in figure.axes[0].get_lines() if line.get_marker() == "_")
    assert pd.isna(mean.get_ydata()).tolist() == [False, True, False, True, False]


def test_legend_names_only_what_is_drawn(curve_of):
    assert not any(word in words(draw(curve_of())) for word in ("diverged", "failed", "missing"))


def test_a_single_rho_and_no_finished_trial_can_be_drawn(make_row, tmp_path):
    save(draw([make_row(0.5)]), tmp_path, "one")
    save(draw([make_row(0.5, status="failed")]), tmp_path, "none")


def test_files_are_the_same_bytes_every_time(curve_of, tmp_path):
    first = save(draw(curve_of()), tmp_path / "a", "allocation")
    second = save(draw(curve_of()), tmp_path / "b", "allocation")
    assert [p.name for p in first] == ["allocation.png", "allocation.svg"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["allocation.png", "allocation.svg"]


def test_a_folder_that_cannot_be_written(curve_of, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        save(draw(curve_of()), tmp_path / "file" / "figures", "allocation")
