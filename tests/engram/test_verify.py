import copy
import json
import math
from pathlib import Path

import pytest

from engram.errors import UserError
from engram.verify import replay

DATA = Path(__file__).parents[1] / "data"


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


def changed_at(vectors, path, change):
    """A copy with `change` applied to what stands at `path`; it returns the new value, or raises KeyError to leave the key out."""
    copied = copy.deepcopy(vectors)
    *outer, last = path
    spot = copied
    for key in outer:
        spot = spot[key]
    try:
        spot[last] = change(spot[last])
    except KeyError:
        del spot[last]
    return copied


def missing(value):
    raise KeyError


def fields(vectors):
    """Paths of all fields of the first case of each kind, and of what is in objects below."""
    for outer in (("compression",), ("hashing", 0), ("fusion", 0)):
        case = vectors
        for key in outer:
            case = case[key]
        for name, value in case.items():
            yield (*outer, name)
            if isinstance(value, dict):
                yield from ((*outer, name, inner) for inner in value)


def deepest(change):
    """Applies `change` to the first element of the innermost lists."""

    def apply(value):
        return [apply(value[0]), *value[1:]] if isinstance(value, list) and value else change(value)

    return apply


CHANGES = {
    "left out": missing,
    "null": lambda value: None,
    "text": lambda value: "many",
    "text of a number": lambda value: "3",
    "a number": lambda value: 3,
    "true": lambda value: True,
    "negative": lambda value: -1,
    "zero": lambda value: 0,
    "a fraction": lambda value: 2.5,
    "a huge number": lambda value: 10**30,
    "infinite": lambda value: math.inf,
    "not a number": lambda value: math.nan,
    "empty list": lambda value: [],
    "empty object": lambda value: {},
    "a list around it": lambda value: [value],
    "one element fewer": lambda value: value[:-1] if isinstance(value, list) else value,
    "ragged": lambda value: [*value[:-1], value[-1][:-1]] if isinstance(value, list) and isinstance(value[-1], list) else value,
    "text inside": deepest(lambda value: "x"),
    "null inside": deepest(lambda value: None),
    "object inside": deepest(lambda value: {}),
    "huge inside": deepest(lambda value: 10**30),
    "half a character inside": deepest(lambda value: "\ud800"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_slightly_wrong_file_is_a_deviation_or_one_line_that_names_the_case(vectors, name):
    refused = 0
    for path in fields(vectors):
        try:
            list(replay(changed_at(vectors, path, CHANGES[name])))
        except UserError as problem:
            refused += 1
            line = str(problem)
            assert line.startswith("compression" if path[0] == "compression" else f"{path[0]}[0]"), path
            for noise in ("input_value", "https://", "\n", "Error", "dtype", "tensor"):
                assert noise not in line, path
            assert len(line) < 200, path
    assert refused > 3


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (("fusion", 0, "memory_dim"), lambda v: 5, "fusion[0]: memory_dim is 5; it must be a multiple of the 2 heads of all orders"),
        (("fusion", 0, "memory_dim"), lambda v: 10, "fusion[0]: value_weight has shape [8, 12]; it must be [8, 10]"),
        (("fusion", 1, "hidden"), lambda v: v[:1], "fusion[1]: hidden has shape [1, 7, 4, 8]; it must be [2, 7, 4, 8]"),
        (("fusion", 0, "gate"), lambda v: "none", 'fusion[0]: gate is "none"; it must be plain or signed_sqrt'),
        (("fusion", 0, "norm_eps", "key"), missing, "fusion[0]: norm_eps.key is missing"),
        (("fusion", 2, "key_norm"), deepest(lambda v: "x"), "fusion[2]: key_norm is "),
        (
            ("hashing", 0, "max_ngram"),
            lambda v: 4,
            "hashing[0]: table_size_per_order is [646400, 646400]; it must be 3 numbers, max_ngram - 1",
        ),
        (
            ("hashing", 1, "layer_ids"),
            lambda v: [-1],
            "hashing[1]: layer_ids is [-1]; it must be a list of whole numbers from 0 to 1000000",
        ),
        (("hashing", 1, "indices", "3"), missing, "hashing[1]: indices.3 is missing"),
        (("hashing",), lambda v: {}, "hashing is {}; it must be a list of cases"),
        (("hashing", 2), lambda v: 7, "hashing[2] is 7; it must be an object"),
        (("compression", "raw_tokens"), lambda v: v[:-1], "compression: raw_tokens has 40 strings; it must have 41"),
    ],
)
def test_the_line_says_what_is_wrong(vectors, path, change, message):
    with pytest.raises(UserError) as caught:
        list(replay(changed_at(vectors, path, change)))
    assert str(caught.value).startswith(message)
