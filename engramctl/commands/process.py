"""Process settings for commands that take only seconds."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Variables of NumPy's own libraries only: MKL's would also set PyTorch's threads."""


def one_blas_thread() -> None:
    """Limit NumPy's and SciPy's linear algebra to one thread, unless they are already loaded or the user has decided otherwise.

    The matrices of the fits are small. While a sweep trains on the same cores, threads that wait for each other stretch a fit from a
    third of a second to fifteen. Besides, with one thread the last digits don't depend on the number of cores.
    """
    if "numpy" not in sys.modules:
        for name in _NAMES:
            os.environ.setdefault(name, "1")


@contextmanager
def no_collection() -> Iterator[None]:
    """Turn the garbage collector off during a command that takes only seconds.

    Walking over the loaded modules again and again would take a twentieth of its time, only to free a few figures.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
