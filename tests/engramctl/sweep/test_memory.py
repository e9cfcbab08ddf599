import pytest

from engram.memory.placement.settings import TablePlacement
from engram.scaling.accounting import count_parameters, training_memory_bytes
from engram.training.validation import sequences_at_once
from engramctl.sweep.build import expand
from engramctl.sweep.files import find_sweep, load_sweep
from engramctl.sweep.memory import memory_note, trial_memory, workers_that_fit

GB = 10**9


@pytest.mark.parametrize(
    ("sizes", "workers", "free", "fit"),
    [
        ([1 * GB] * 9, 8, 64 * GB, 8),
        ([1 * GB] * 9, 8, 3 * GB, 3),
        ([3 * GB, 1 * GB, 1 * GB], 3, 4 * GB, 2),
        ([1 * GB, 1 * GB], 8, 2 * GB, 8),  # all of them at once, on two of eight workers
        ([5 * GB], 4, 4 * GB, 1),
        ([], 4, 4 * GB, 4),
    ],
)
def test_the_largest_trials_fit_together(sizes, workers, free, fit):
    assert workers_that_fit(sizes, workers, free) == fit


@pytest.mark.parametrize(
    ("sizes", "workers", "free", "given", "note"),
    [
        ([1 * GB] * 9, 8, 64 * GB, False, None),
        ([1 * GB] * 2, 8, 2 * GB, False, None),
        ([1_200_000_000] * 9, 8, 3 * GB, False, "2 at a time, not 8: each takes about 1.2 GB of the 3 GB that are free"),
        (
            [1_200_000_000] * 9,
            8,
            3 * GB,
            True,
            "8 at a time may be too many: each takes up to 1.2 GB of the 3 GB that are free; --workers 2 is safe",
        ),
        (
            [5 * GB],
            4,
            3 * GB,
            False,
            "1 at a time: a trial takes about 5 GB, more than the 3 GB that are free; it may be killed for memory",
        ),
        ([5 * GB], 4, 3 * GB, True, "a trial takes about 5 GB, more than the 3 GB that are free; it may be killed for memory"),
    ],
)
def test_what_is_said_about_memory(sizes, workers, free, given, note):
    assert memory_note(sizes, workers, free, given) == note


def test_what_a_trial_takes():
    trial = expand(load_sweep(find_sweep("smoke"), {}), [1e11], 512, "c", "t")[0]
    assert trial.rho == 0
    alone = training_memory_bytes(trial.model, sequences_at_once(trial.train) * trial.train.seq_len)
    tables = 12 * count_parameters(trial.model).memory_tables
    assert tables > 0
    assert trial_memory(trial, TablePlacement()) == alone
    assert trial_memory(trial, TablePlacement(), devices=2) == 2 * alone - tables
    assert trial_memory(trial, TablePlacement(kind="disk", cache_bytes=10**6)) == alone - tables + 10**6
