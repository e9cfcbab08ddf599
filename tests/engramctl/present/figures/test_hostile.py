"""Figures are ours: neither a notebook's backend, nor a matplotlibrc, nor what people call their variants changes or breaks them."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import pytest

from engramctl.findings.fits import sweep_fits
from engramctl.present.figures.draw import draw
from engramctl.present.figures.readable import make_readable
from engramctl.present.figures.save import save
from engramctl.present.figures.style import drawing
from engramctl.present.report.page import page_figure
from engramctl.results.sweep_results import SweepResults

LABELS = [
    r"lr $\frac$ x",
    "$",
    "a$b$c",
    r"\textbf{x}",
    "_hidden",
    "$x^2$",
    "a_b^c % & #",
    "<b>&amp;--></b>",
    "中文 😀",
    "\x1b[31mred\x07",
    "{",
    "{0}%s",
]
REFERENCE = Path(__file__).parents[4] / "results" / "reference"
HOSTILE = {
    "text.usetex": "True", "font.size": "30", "svg.fonttype": "none", "figure.facecolor": "red", "lines.linewidth": "9",
    "path.sketch": "1, 2, 3", "savefig.bbox": "tight", "figure.constrained_layout.use": "False", "text.parse_math": "True",
    "axes.formatter.use_mathtext": "True", "pdf.compression": "0", "savefig.transparent": "True", "axes.grid": "True",
}  # fmt: skip


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def variants(fill, make_row, tmp_path, label):
    rows = [make_row(rho, seed, variant=name) for rho in (0.0, 0.5, 1.0) for seed in (0, 1) for name in ("first", label)]
    fill(tmp_path, rows, axes={"kind": {"first": {}, label: {}}})
    opened = SweepResults.open(tmp_path, "allocation")
    return opened, sweep_fits(opened)


@pytest.mark.parametrize("label", LABELS)
def test_names_are_drawn_as_they_stand(fill, make_row, tmp_path, label):
    opened, fits = variants(fill, make_row, tmp_path, label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of glyphs that are missing, of labels that are left out
        for kind in fits.kinds:
            figure = draw(kind, opened.wanted, fits)
            page_figure(kind, figure)
            save(figure, tmp_path / "figures", kind)
            shown = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
            assert any(label.replace("\x1b", "\ufffd").replace("\x07", "\ufffd")[:3] in text for text in shown) or not label.isascii()


def test_a_matplotlibrc_changes_no_byte(fill, make_row, tmp_path):
    opened, fits = variants(fill, make_row, tmp_path, "second")
    with matplotlib.rc_context({"backend": "agg"}):
        for kind in fits.kinds:
            save(draw(kind, opened.wanted, fits), tmp_path / "plain", kind)
        matplotlib.rcParams.update({name: matplotlib.rcsetup._validators[name](value) for name, value in HOSTILE.items()})
        for kind in fits.kinds:
            save(draw(kind, opened.wanted, fits), tmp_path / "hostile", kind)
    assert files(tmp_path / "plain") == files(tmp_path / "hostile")


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "TkAgg", ""])
def test_the_backend_of_a_notebook_does_not_matter(tmp_path, backend):
    (tmp_path / "matplotlibrc").write_text("".join(f"{name}: {value}\n" for name, value in HOSTILE.items()) + "no.such.key: 1\n")
    program = (
        "from engramctl.present.figures.save import save; from engramctl.present.figures.style import drawing\n"
        "import os, pathlib; from matplotlib.figure import Figure\n"
        "with drawing(): figure = Figure(); figure.add_subplot().set_title('x')\n"
        "save(figure, pathlib.Path('out'), 'one'); print(os.environ['MPLBACKEND'])"
    )
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == backend
    assert sorted(files(tmp_path / "out")) == ["one.pdf", "one.png", "one.svg"]


@pytest.mark.parametrize(("settings", "said"), [(b"font.family: \xff\n", "error: matplotlib can't read its settings: "), (b"", "")])
def test_matplotlib_itself_says_nothing(tmp_path, settings, said):
    """Neither of settings that are no text, nor of a home that is not there."""
    (tmp_path / "matplotlibrc").write_bytes(settings)
    environment = os.environ | {"HOME": "/nonexistent", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment = {name: value for name, value in environment.items() if not name.startswith(("XDG_", "MPL"))}
    arguments = ["plot", "laptop", "--results", str(REFERENCE), "--out", str(tmp_path / "out"), "--format", "svg"]
    done = subprocess.run([sys.executable, "-m", "engramctl", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    if said:
        assert len(lines) == 1
        assert lines[0].startswith(said)
    else:
        assert [line for line in lines if not line.startswith(("figure: ", "next: "))] == []


def test_logarithmic_axes_have_no_formulas():
    with drawing():
        figure = matplotlib.figure.Figure()
        axes = figure.add_subplot()
        axes.set(xscale="log", xlim=(0.1, 1000), yscale="log", ylim=(1, 9))
        make_readable(figure)
        figure.draw_without_rendering()
        labels = [tick.get_text() for tick in axes.get_xticklabels() + axes.get_yticklabels(minor=True)]
    assert {"10⁻¹", "10⁰", "10³", "2×10⁰"} <= set(labels)
    assert not [label for label in labels if "$" in label]
