"""Figures as files: the same figure gives the same bytes."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends import backend_agg, backend_pdf, backend_svg
from matplotlib.figure import Figure

from engram.errors import UserError
from engram.files import write_atomically
from engramctl.present.figures.readable import make_readable
from engramctl.present.figures.style import drawing

FORMATS = ("png", "svg", "pdf")
_DPI = 300
_METADATA: dict[str, Any] = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Leaves out the time of creation."""
_PRINT: dict[str, Callable[..., None]] = {
    "png": lambda figure, *args, **kwargs: backend_agg.FigureCanvasAgg(figure).print_png(*args, **kwargs),
    "svg": lambda figure, *args, **kwargs: backend_svg.FigureCanvasSVG(figure).print_svg(*args, **kwargs),
    "pdf": lambda figure, *args, **kwargs: backend_pdf.FigureCanvasPdf(figure).print_pdf(*args, **kwargs),
}


def check_formats(text: str) -> tuple[str, ...]:
    """`png,svg` as a tuple of formats, each once; UserError names an unknown one."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--format {name}: {', '.join(FORMATS)} are allowed")
    if not names:
        raise UserError(f"--format names no format; {', '.join(FORMATS)} are allowed")
    return tuple(dict.fromkeys(names))


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write `<name>.<format>`, each atomically; UserError when the folder can't be written."""
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with drawing():
            make_readable(figure)
            # One layout for all formats: it takes as long as the drawing, and would differ a little between formats.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for kind in formats:
                buffer = BytesIO()
                figure.dpi = _DPI
                # Not `savefig`, which draws every file twice, once for the layout, which is fixed by now.
                _PRINT[kind](figure, buffer, metadata=_METADATA[kind])
                paths.append(folder / f"{name}.{kind}")
                write_atomically(paths[-1], buffer.getvalue())
    except OSError as problem:
        raise UserError(f"figures can't be written to {folder}: {problem.strerror}") from None
    return paths
