"""Figures from tables and fits: no training code, no pyplot, and the same bytes for the same data."""

import logging
import os
from contextlib import suppress

from engram.errors import UserError

# Where it keeps its fonts and what it makes of its settings is nothing to tell anybody; what is wrong with them is said below.
_logger = logging.getLogger("matplotlib")
if _logger.level == logging.NOTSET:
    _logger.setLevel(logging.ERROR)
# A notebook leaves its backend in the environment; where the package of that backend is missing, matplotlib can't be imported with it.
_theirs = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib
except UnicodeDecodeError:
    raise UserError("matplotlib can't read its settings: the file matplotlibrc, here or where MATPLOTLIBRC says, is not UTF-8") from None
finally:
    if _theirs is not None:
        os.environ["MPLBACKEND"] = _theirs
if _theirs:
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _theirs
