from collections.abc import Callable

import pytest

from engram.errors import UserError
from engram.evaluation.ruler import CATEGORIES, TASKS, Sample, echo_floor, score, tokens_to_generate


def test_tasks_and_categories():
    assert len(TASKS) == 13
    assert len(CATEGORIES) == 8
    assert {task: tokens_to_generate(task) for task in ("niah_multiquery", "vt", "cwe", "fwe", "qa_2")} == {
        "niah_multiquery": 128,
        "vt": 30,
        "cwe": 120,
        "fwe": 50,
        "qa_2": 32,
    }
    with pytest.raises(UserError, match=r"^there is no RULER task niah_single_4; the tasks are niah_single_1, .*, qa_2$"):
        tokens_to_generate("niah_single_4")


@pytest.mark.parametrize(
    ("task", "prediction", "outputs", "expected"),
    [
        ("niah_single_1", " 1234567.", ["1234567"], 100.0),
        ("niah_multivalue", "1111111, 2222222 and 3333333", ["1111111", "2222222", "3333333", "4444444"], 75.0),
        ("vt", "ABCDE fghij", ["ABCDE", "FGHIJ", "KLMNO", "PQRST", "UVWXY"], 40.0),
        ("fwe", "", ["abcdef", "ghijkl", "mnopqr"], 0.0),
        ("cwe", "1. void 2. pages", ["page", "void"], 100.0),  # contained is enough
        ("qa_1", "in the United States\n", ["the united states", "America"], 100.0),
        ("qa_1", "France", ["the united states", "America"], 0.0),
        ("qa_2", "yes", ["Yes"], 100.0),
        ("qa_2", "\x00new\x1fyork\t", ["new\nyork"], 100.0),
    ],
)
def test_score_by_hand(task: str, prediction: str, outputs: list[str], expected: float):
    assert score(task, prediction, outputs) == expected


def test_a_sample_without_references_is_an_error():
    with pytest.raises(UserError, match="no reference answer"):
        score("vt", "anything", [])


def test_echo_floor_by_hand(encode: Callable[[str], list[str]]):
    filler = "word " * 40
    # 32 tokens of qa's answer: 30 words, "Answer", ":".
    within = Sample(0, f"Paris {'word ' * 29}", ("London", "Paris"), 0, " Answer:")
    beyond = Sample(0, f"Paris {'word ' * 30}", ("London", "Paris"), 0, " Answer:")
    assert echo_floor("qa_1", [within], encode) == 100.0
    assert echo_floor("qa_1", [within, beyond], encode) == 50.0
    assert echo_floor("vt", [Sample(0, f"{filler}ABCDE FGHIJ", ("ABCDE", "KLMNO"), 0, " they are: ")], encode) == 50.0
    with pytest.raises(UserError, match="no samples of vt"):
        echo_floor("vt", [], encode)
