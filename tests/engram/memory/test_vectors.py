import copy
import json
from pathlib import Path

import pytest

from engram.memory.vectors import replay

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def vectors():
    return json.loads((DATA / "engram_vectors.json").read_text())


def test_our_modules_give_the_recorded_numbers(vectors):
    deviations = list(replay(vectors))
    assert {d.part.split("[")[0].split(".")[0] for d in deviations} == {"compression", "hashing", "fusion"}
    assert [d for d in deviations if not d.ok] == []


@pytest.mark.parametrize(
    "path",
    [
        ("compression", "canonical_ids", 3),
        ("hashing", 1, "multipliers", "3", 0),
        ("hashing", 1, "head_table_sizes", "5", 2, 1),
        ("hashing", 1, "indices", "0", 1, 4, 2),
        ("fusion", 1, "gates", 0, 3, 2),
        ("fusion", 0, "output", 1, 2, 0, 5),
    ],
)
def test_a_changed_number_is_found(vectors, path):
    changed = copy.deepcopy(vectors)
    *outer, last = path
    spot = changed
    for key in outer:
        spot = spot[key]
    spot[last] += 1 if isinstance(spot[last], int) else 1e-8
    assert sum(not d.ok for d in replay(changed)) == 1


def test_a_wrong_shape_is_a_deviation(vectors):
    changed = copy.deepcopy(vectors)
    changed["fusion"][2]["gates"][0].pop()
    assert [d.part for d in replay(changed) if not d.ok] == ["fusion[2].gates (shape (1, 9, 1), recorded (1, 8, 1))"]
