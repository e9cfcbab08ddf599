"""Settings of this process that a command of seconds wants."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Of NumPy's own libraries alone: MKL's variable would set PyTorch's threads too."""


def one_blas_thread() -> None:
    """Keep NumPy's and SciPy's linear algebra to one thread, if they are not loaded yet and nobody has said otherwise.

    The matrices of the fits are small. While a sweep trains on the same cores, threads that wait for each other take a fit from a
    third of a second to fifteen; and the last digits do not depend on the number of cores.
    """
    if "numpy" not in sys.modules:
        for name in _NAMES:
            os.environ.setdefault(name, "1")


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave reference cycles alone during a command of seconds.

    Walking over the loaded modules again and again would take a twentieth of its time, and all there is to free is a few figures.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
