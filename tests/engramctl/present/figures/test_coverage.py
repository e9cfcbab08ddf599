"""The figure of coverage by shape."""

from engramctl.present.figures.coverage import coverage_figure
from engramctl.present.figures.save import save

ROWS = [
    {"shape": shape, "n_seeds": n, "rho_covered": held, "smooth_covered": held, "gain_covered": 0.95, "worst_held": 1.0}
    for shape, held in (("corner", 0.9), ("flat", None))
    for n in (1, 3)
]


def test_every_row_is_a_point_and_shapes_are_named(tmp_path):
    figure = coverage_figure(ROWS)
    convex, smooth, gain, cost = figure.axes
    assert [text.get_text() for text in convex.get_yticklabels()] == ["corner", "flat"]

    def points(axes):
        return sorted(float(line.get_xdata()[0]) for line in axes.get_lines() if line.get_marker() == "o")

    assert points(convex) == points(smooth) == [90, 90]
    assert points(gain) == [95] * 4
    assert points(cost) == [100] * 4
    assert save(figure, tmp_path, "coverage", ["png"])[0].is_file()
