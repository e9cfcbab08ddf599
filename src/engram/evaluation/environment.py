"""lm-eval as a library: whether it is installed, how to keep it quiet, and how to keep it off the network."""

import importlib.util
import logging
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engram.errors import UserError

_LOGGERS = ("lm_eval", "datasets", "evaluate", "huggingface_hub", "absl")
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")
# The libraries read the environment when they are imported; those already imported are told through these attributes.
_OFFLINE_FLAGS = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_DATASETS_OFFLINE"),
    ("evaluate.config", "HF_EVALUATE_OFFLINE"),
)


def require_lm_eval() -> None:
    """UserError when lm-eval, an optional dependency, is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("benchmarks need lm-eval, which is not installed; pip install 'engramctl[eval]'")


@contextmanager
def offline(enabled: bool) -> Iterator[None]:
    """If enabled, restrict the Hugging Face libraries to their local caches within the context."""
    if not enabled:
        yield
        return
    variables = {name: os.environ.get(name) for name in _OFFLINE}
    flags = [(sys.modules[name], flag) for name, flag in _OFFLINE_FLAGS if name in sys.modules]
    before = [getattr(module, flag, None) for module, flag in flags]
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    for module, flag in flags:
        setattr(module, flag, True)
    try:
        yield
    finally:
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for (module, flag), value in zip(flags, before, strict=True):
            setattr(module, flag, value)


@contextmanager
def quiet() -> Iterator[None]:
    """Within the context, lm-eval and what it uses print only errors, and its bootstrap stays in this process."""
    require_lm_eval()
    import datasets
    import lm_eval.api.metrics as metrics
    import lm_eval.api.task as task

    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    bars = datasets.are_progress_bars_disabled()
    replaced = (task.tqdm, metrics.bootstrap_stderr)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    task.tqdm, metrics.bootstrap_stderr = _no_bar, _bootstrap_stderr
    try:
        yield
    finally:
        task.tqdm, metrics.bootstrap_stderr = replaced
        if not bars:
            datasets.enable_progress_bars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _no_bar(things: Any, **_options: Any) -> Any:
    return things


def _bootstrap_stderr(statistic: Callable[[Sequence[Any]], float], values: Sequence[Any], iterations: int) -> float:
    """Standard deviation of a statistic over resampled values: like lm-eval's, which starts a pool of processes and prints."""
    rng = random.Random(0)
    return statistics.stdev(statistic(rng.choices(values, k=len(values))) for _ in range(iterations))
