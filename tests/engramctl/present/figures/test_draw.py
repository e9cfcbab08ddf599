import json
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from engram.fitting.results import AllocationFit, Band, Drift, Interval, Line, MemoryFit, PairedDifference, Verdict
from engramctl.findings.fits import SweepFits
from engramctl.findings.layers import LAYER_AXIS, LayerLoss
from engramctl.findings.losses import SeedDifferences
from engramctl.findings.memory import NoMemory
from engramctl.findings.variants import Comparison
from engramctl.present.figures.draw import draw
from engramctl.present.figures.save import save
from engramctl.results.trial_table import Series

RHOS = (0.0, 0.5, 1.0)
BUDGET = 8.2e12


def words(figure: Figure) -> list[str]:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))).splitlines()


def points(axes, marker):
    """Places of all marks of a kind on axes."""
    return sorted((x, y) for line in axes.get_lines() if str(line.get_marker()) == marker for x, y in zip(*line.get_data(), strict=True))


def difference(by_seed):
    mean = float(np.mean(list(by_seed.values())))
    return SeedDifferences(by_seed, PairedDifference(Interval(mean, mean - 0.01, mean + 0.02), 0.01, 9, len(by_seed), "In words."))


def allocation(star, gain):
    nan = Interval(*[float("nan")] * 3)
    verdict = Verdict("interior", "", 0.01, 0.01, 0, ())
    return AllocationFit("line", {}, 0.01, 1, Interval(*star), None, Interval(*star), nan, Interval(*gain), nan, None, verdict)


def law(slope, form="log-linear"):
    x = np.geomspace(1e3, 2e5, 31)
    loss = 3.3 + slope * np.log10(x / 1e3)
    change = Interval(slope, slope - 0.01, slope + 0.01)
    parameters = {"log-linear": {"slope": change}, "power-law": {"exponent": Interval(0.3, 0.2, 0.4)}}
    return MemoryFit(form, {form: 0.6}, {}, change, parameters, Band(x, loss, loss - 0.005, loss + 0.005), (1e3, 1e5), "In words.")


@pytest.fixture
def examples(wanted, make_row, variant_rows):
    """Trials and fits of every kind, with a diverged, a failed and a missing trial each."""
    over_rho = [make_row(r, s, budget=b) for r in RHOS for s in (0, 1) for b in (1e12, 4e12)]
    over_rho += [make_row(0.5, 2, budget=1e12, status="diverged"), make_row(0.5, 2, budget=4e12, status="failed")]
    budgets = {
        Series("3m", 1e12, ""): allocation((0.4, 0.2, 0.5), (0.05, 0.04, 0.06)),
        Series("3m", 4e12, ""): allocation((0.6, 0.5, 0.8), (0.04, 0.02, 0.05)),
    }
    line = Line(np.array([1e12, 4e12, 4e13]), np.array([0.45, 0.55, 0.8]), np.array([0.3, 0.5, 0.4]), np.array([0.5, 0.7, 1.0]))
    moves = Drift(Interval(0.33, -0.1, 0.5), "not shown", 0.2, Interval(-0.01, -0.03, 0.01), 0.4, "", line)
    drift = (
        wanted(over_rho, [make_row(0.5, 3, budget=4e12)]),
        SweepFits(("drift",), allocation=budgets, drift={("3m", ""): moves}),
    )

    def slots(variant, n, seed, **more):
        at = {"variant": variant, "n_slots": n, "p_engram": 8 * n, "p_sparse": 8 * n + 1e6, "axes": json.dumps({"design": variant})}
        return make_row(1e6 / (1e6 + 8 * n), seed, **at, **more)

    rows = [slots(v, n, s, val_loss=3.3) for v in ("engram", "value") for n in (1000, 10_000, 100_000) for s in (0, 1)]
    rows += [slots("engram", 0, s, val_loss=3.4) for s in (0, 1)] + [slots("engram", 0, 2, status="diverged")]
    rows += [slots("value", 10_000, 2, status="failed")]
    none = NoMemory({0: 3.4, 1: 3.4}, 3.4, difference({0: 0.1, 1: 0.12}))
    laws = {Series("3m", BUDGET, "engram"): law(-0.03), Series("3m", BUDGET, "value"): law(-0.02, "power-law")}
    memory = (
        wanted(rows, [slots("value", 100_000, 2)], slots=[0, 1000, 10_000, 100_000]),
        SweepFits(("memory",), memory=laws, no_memory={("3m", BUDGET): none}),
    )

    parts = variant_rows("part", "full", [3.0, 3.1]) + variant_rows("part", "no gate", [3.1, 3.2, None])
    parts += variant_rows("part", "better", [2.9, 3.0]) + variant_rows("part", "hopeless and long in its name", [None])

    def against_full(variant, losses, by_seed):
        return Comparison("3m", BUDGET, variant, 0.5, "full", 0.5, losses, 3.05, difference(by_seed) if by_seed else None)

    compared = (against_full("no gate", 3.15, {0: 0.1, 1: 0.12}), against_full("better", 2.95, {0: -0.1, 1: -0.12}))
    compared += (against_full("hopeless and long in its name", float("nan"), {}),)
    absent = variant_rows("part", "better", [3.0, 3.0, 3.0])[2:]
    variants = wanted(parts, absent, axes={"part": {"better": {}}}), SweepFits(("variants",), variants=compared)

    def at(layers, losses):
        return variant_rows(LAYER_AXIS, f"layers={json.dumps(layers)}", losses)

    placed = at([0], [3.1, 3.12]) + at([1], [3.0, 3.02]) + at([1, 3], [2.98, None])
    found = [LayerLoss("3m", BUDGET, 0.5, "", (i,), {0: 3.1 - 0.1 * i, 1: 3.12 - 0.1 * i}, difference({0: 0.1, 1: 0.1})) for i in (0, 1)]
    found.append(LayerLoss("3m", BUDGET, 0.5, "", (1, 3), {0: 2.98}, difference({0: -0.1})))
    layers = wanted(placed, at([0], [3.0] * 3)[2:], axes={LAYER_AXIS: {"layers=[0]": {}}}), SweepFits(("layers",), layers=tuple(found))
    return {"drift": drift, "memory": memory, "variants": variants, "layers": layers}


KINDS = ("drift", "memory", "variants", "layers")


@pytest.mark.parametrize("kind", KINDS)
def test_trials_without_a_loss_are_marked_and_nothing_is_clipped(examples, kind, tmp_path):
    figure = draw(kind, *examples[kind])
    marks = {str(line.get_marker()) for line in figure.findobj(lambda artist: hasattr(artist, "get_marker"))}
    statuses = set(examples[kind][0]["status"])
    assert statuses >= {"diverged", "missing"}
    assert marks >= {{"diverged": "x", "failed": "$!$", "missing": "$?$", "finished": "o"}[status] for status in statuses}
    save(figure, tmp_path, kind, ["png"])
    renderer = figure.canvas.get_renderer()
    legends = [legend.get_window_extent(renderer) for legend in figure.findobj(Legend)]
    for box in [*legends, *(axes.get_tightbbox(renderer) for axes in figure.axes)]:
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y0 >= -1
        assert box.y1 <= figure.bbox.y1 + 1
    assert not any(one.overlaps(other) for one, other in pairwise(legends))
    assert not any(box.overlaps(axes.get_tightbbox(renderer)) for box in legends for axes in figure.axes)


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_the_same_bytes_every_time(examples, kind, tmp_path):
    first, second = (save(draw(kind, *examples[kind]), tmp_path / name, kind) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("kind", ["drift", "memory"])
def test_trials_can_be_drawn_before_there_are_fits(examples, kind, tmp_path):
    trials, _ = examples[kind]
    save(draw(kind, trials, SweepFits()), tmp_path, kind, ["png"])


def test_drift(examples):
    figure = draw("drift", *examples["drift"])
    upper, lower = figure.axes
    assert points(upper, "o") == [(1e12, 0.4), (4e12, 0.6)]
    assert points(lower, "o") == [(1e12, 0.05), (4e12, 0.04)]
    assert lower.get_xscale() == "log"
    assert "+0.33 (−0.10, +0.50) per ×10 budget" in words(figure)
    joint, ahead = (
        line for line in upper.get_lines() if len(line.get_xdata()) > 1 and line.get_marker() == "None" and line.get_lw() == 0.9
    )
    assert [*joint.get_ydata()] == pytest.approx([0.45, 0.55])
    assert ahead.get_xdata() == pytest.approx([4e12, 1.2e13])
    assert ahead.get_linestyle() == "--"
    assert upper.get_xlim()[1] > 1.2e13


def test_two_models_stand_beside_each_other(examples, wanted, make_row):
    trials, fits = examples["drift"]
    rows = [make_row(r, budget=b, size="10m") for r in RHOS for b in (1e12, 4e12)]
    other = {Series("10m", budget, ""): allocation((0.5, 0.4, 0.6), (0.05, 0.04, 0.06)) for budget in (1e12, 4e12)}
    small = trials[trials["status"] != "missing"].to_dict("records")
    figure = draw("drift", wanted([*small, *rows]), SweepFits(("drift",), allocation=fits.allocation | other))
    first, second = points(figure.axes[0], "o"), points(figure.axes[0], "s")
    assert len(first) == len(second) == 2
    assert not {x for x, _ in first} & {x for x, _ in second}


def test_memory(examples):
    figure = draw("memory", *examples["memory"])
    (axes,) = figure.axes
    text = words(figure)
    assert "−0.030 (−0.040, −0.020) per ×10 slots" in text
    assert "−0.020 (−0.030, −0.010) per ×10 slots" in text
    assert "to 2×" in text
    curves = [line for line in axes.get_lines() if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]
    assert all(line.get_xdata().max() <= 1e5 * 1.001 for line in curves)
    beyond = [line for line in axes.get_lines() if len(line.get_xdata()) > 2 and line.get_xdata().max() > 1e5 * 1.001 and line.get_alpha()]
    assert len(curves) == len(beyond) == 2
    # Trials without memory have no place on a logarithm: they stand at a tick of their own.
    ticks = dict(zip([label.get_text() for label in axes.get_xticklabels()], axes.get_xticks(), strict=True))
    assert [x for x, _ in points(axes, "x")] == [ticks["0"]]
    assert ticks["0"] < ticks["10³"] < ticks["10⁵"]


def test_variants_are_sorted_with_the_reference_at_zero(examples):
    figure = draw("variants", *examples["variants"])
    (axes,) = figure.axes
    labels = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert labels == ["better", "full", "no gate", "hopeless and long in its name"]
    assert points(axes, "D") == [(0.0, 1.0)]
    text = words(figure)
    assert {"−0.110", "(−0.120, −0.090)", "+0.110", "loss 3.0500", "no pair of seeds"} <= set(text)
    low, high = axes.get_ylim()
    assert low > high  # the first row is on top
    assert [y for _, y in points(axes, "x")] == [2.0, 3.0]


def test_layers(examples):
    figure = draw("layers", *examples["layers"])
    (axes,) = figure.axes
    assert {(0, 3.11), (1, 3.01)} <= {(x, round(y, 6)) for x, y in points(axes, "o")}
    assert any(set(line.get_ydata()) == {2.98} for line in axes.get_lines())
    assert {"layers", "1, 3"} <= set(words(figure))
    assert list(axes.get_xticks()) == [0, 1]
    assert [x for x, _ in points(axes, "$?$")] == [0]
    assert [x for x, _ in points(axes, "x")] == [pytest.approx(1.9)]
