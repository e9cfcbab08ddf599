"""Whatever people call things: each medium shows it as text, and nothing in it works."""

import io
import shlex
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from engramctl.present import console
from engramctl.present.figures.readable import make_readable
from engramctl.present.figures.style import drawing
from engramctl.present.report import page
from engramctl.present.report.content import ReportTable
from engramctl.results.defaults import command

PARTS = [
    "$",
    r"\frac",
    "<script>",
    '"',
    "'",
    "&amp;",
    "--",
    "\x1b[2J",
    "\x07",
    "\u202e",
    "[red]",
    "{{",
    "%s",
    "`id`",
    "$(id)",
    ";",
    " ",
    "\n",
    "ü",
    "中",
    "😀",
]
HOSTILE = st.lists(st.one_of(st.sampled_from(PARTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)), min_size=1, max_size=6)
TEXT = HOSTILE.map("".join).filter(bool)


@settings(deadline=None, max_examples=100)
@given(TEXT)
def test_terminal(text):
    file = io.StringIO()
    terminal = console.out()
    terminal.file = file
    terminal.print(console.table(["name", "n"], [[text, 1]]), soft_wrap=True)
    terminal.print(text, markup=False)
    shown = file.getvalue()
    assert shown.isascii() or not console._UNSEEN.search(shown)
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@settings(deadline=None, max_examples=100)
@given(TEXT)
def test_shell_lines(text):
    typed = command("plot", text, Path(text) if "\0" not in text else Path("x"))
    assert typed[0] == typed[-1] == "`"
    words = shlex.split(typed[1:-1])
    assert words[:2] == ["engramctl", "plot"]
    assert text in words[2:]


class _Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def _page(text):
    environment = Environment(
        loader=FileSystemLoader(Path(page.__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    table = ReportTable(text, (text,), [(text,)], note=text)
    figure = page.PageFigure("", 700, text, text)
    return environment.get_template("template.html").render(
        sweep=text, question=text, counts=text, version="1", date=text, verdicts=[{"of": text, "text": text}], warnings=[text],
        figures=[figure],
        findings=[], fit_tables=[table], point_tables=[table], cost=table, varied=table, fixed=table, origin=table, trials=table,
        commands=text,
    )  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(TEXT)
def test_page(text):
    plain, hostile = _Tags(_page("x")), _Tags(_page(text))
    assert hostile.tags == plain.tags
    assert hostile.attributes == plain.attributes


@settings(deadline=None, max_examples=25)
@given(TEXT)
def test_figure(text):
    with drawing():
        figure = Figure()
        axes = figure.add_subplot()
        axes.set_title(text)
        axes.set_yticks([0, 1], [text, "b"])
        make_readable(figure)
        figure.savefig(file := io.BytesIO(), format="svg")
        shown = axes.get_title()
    assert len(shown) == len(text)
    assert all(a in (b, "\ufffd") for a, b in zip(shown, text, strict=True))
    assert b"\x1b" not in file.getvalue()
    assert not matplotlib.rcParams["text.usetex"]
