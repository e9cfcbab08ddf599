import json

import pytest
import torch

from engram.benchmarks.results.pack import worthwhile
from engram.memory.placement.settings import TablePlacement
from engramctl.sweep import side_by_side
from engramctl.sweep.build import expand
from engramctl.sweep.files import find_sweep, load_sweep
from engramctl.sweep.side_by_side import Gpus, choose, known_choice, measured_trial, most_at_once

GB = 10**9
TABLES = TablePlacement()


def gpus(count=1, memory=80 * GB):
    return Gpus(torch.device("cpu"), count, "Made Up 80GB", memory)


@pytest.fixture
def trials(monkeypatch):
    monkeypatch.setattr(side_by_side, "local_workers", lambda device: 16)
    return expand(load_sweep(find_sweep("allocation"), {"sizes": ["3m", "1m"]}), [1e14], 512, "c", "t")


def test_the_smallest_size_is_measured(trials):
    assert (measured_trial(trials).size, measured_trial(trials).rho) == ("1m", 0.7)


def test_how_many_could_be_at_a_time(trials, monkeypatch):
    assert most_at_once(trials, TABLES, gpus()) == 8
    assert most_at_once(trials[:3], TABLES, gpus()) == 3
    assert most_at_once(trials, TABLES, gpus(count=4)) == 4
    assert most_at_once(trials, TABLES, gpus(memory=GB)) < 8
    assert most_at_once(trials, TABLES, gpus(memory=1)) == 1
    monkeypatch.setattr(side_by_side, "local_workers", lambda device: 2)
    assert most_at_once(trials, TABLES, gpus()) == 2


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([(1, 100.0)], 1),
        ([(1, 100.0), (2, 180.0), (4, 185.0), (8, 400.0)], 2),
        ([(1, 1.0), (2, 2.0), (4, 3.0)], 4),
        ([(2, 9.0), (4, 8.0)], 2),
    ],
)
def test_what_pays(found, best):
    assert worthwhile(found) == best


def test_a_short_sweep_is_not_measured(trials, tmp_path):
    short = [trial.model_copy(update={"train": trial.train.model_copy(update={"steps": 1})}) for trial in trials]
    choice = known_choice(short, TABLES, gpus(count=2), tmp_path)
    assert (choice.workers, choice.note) == (2, "2 trials at a time, one on each GPU")


def test_a_measurement_is_kept(trials, tmp_path, tiny_corpus, monkeypatch):
    asked = []

    class Packed:
        def __init__(self, workers, together):
            self.workers = workers
            self.together = type("Median", (), {"median": together})

    def measure(trial, corpus_folder, device, counts, *_, **options):
        asked.append(counts)
        return type("Pack", (), {"counts": [Packed(1, 1e6), Packed(2, 1.9e6), Packed(4, 1.9e6)]})

    monkeypatch.setattr(side_by_side, "measure_pack", measure)
    assert known_choice(trials, TABLES, gpus(2), tmp_path) is None
    choice = choose(trials, TABLES, gpus(2), tiny_corpus.folder, tmp_path)
    assert choice.workers == 4
    assert choice.note == (
        "4 at a time, 2 on each GPU (by turns, no MPS daemon runs): tokens/s together 1: 1M, 2: 1.9M, 4: 1.9M; measured with size 1m"
    )
    assert choose(trials[:-1], TABLES, gpus(2), tiny_corpus.folder, tmp_path).note.endswith("; measured here before")
    assert asked == [[1, 2, 4, 8]]
    (kept,) = (tmp_path / "packs").iterdir()
    assert json.loads(kept.read_text()) == [[1, 1e6], [2, 1.9e6], [4, 1.9e6]]
    kept.write_text("cut of")
    choose(trials, TABLES, gpus(2), tiny_corpus.folder, tmp_path)
    assert len(asked) == 2


def test_what_does_not_train_is_left_to_the_trials(trials, tmp_path):
    """A real measurement, of trials whose text is not there."""
    choice = choose(trials[-2:], TABLES, gpus(), tmp_path / "nowhere", tmp_path)
    assert choice.workers == 1
    assert choice.note.startswith("one trial on each GPU: trials of size 1m don't train here: ")
    assert not (tmp_path / "packs").exists()
