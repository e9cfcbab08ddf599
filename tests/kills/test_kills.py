"""A few kills of each kind for every change; `make kills` has as many as one likes."""

import json

import pytest

from tests.kills.rounds import kill_sweeps


@pytest.fixture
def sweep(text_folder, tmp_path) -> list[str]:
    file = tmp_path / "tiny.yaml"
    spec = {
        "question": "Does it come to its end?",
        "corpus": {"source": f"files:{text_folder}/*.txt", "vocab_size": 400, "val_fraction": 0.1},
        "sizes": ["1m"],
        "rhos": [0.5, 1],
        "budgets": ["3e10"],
        "train": {"val_tokens": 2048, "n_validations": 2},
    }
    file.write_text(json.dumps(spec))
    return [str(file), "--workers", "1"]


def test_a_sweep_that_is_killed_ends_as_if_nothing_had_happened(sweep, cache):
    hits = [("worker", "KILL"), ("gcs_server", "TERM"), ("driver", "KILL")]
    kills, wrong = kill_sweeps(sweep, len(hits), seed=1, cache=cache, hits=hits)
    assert wrong == []
    assert {(kill["target"], kill["signal"]) for kill in kills} <= set(hits)
    assert len(kills) == len(hits)
