import math
from types import SimpleNamespace

import pytest

from engram.evaluation.metrics import Answer, answer_bytes, chance, is_binary, items, mean, right_answer


def make_task(output_type, choices=("one", "two", "three"), multiple_input=0, delimiter=" "):
    return SimpleNamespace(
        OUTPUT_TYPE=output_type,
        multiple_input=multiple_input,
        doc_to_text=lambda doc: doc["text"],
        doc_to_choice=lambda _doc: list(choices),
        config=SimpleNamespace(doc_to_choice=choices or None, target_delimiter=delimiter),
    )


def make_sample(target, arguments, responses, **more):
    return {"doc_id": 3, "doc": {"text": 2}, "doc_hash": "h", "target": target, "arguments": arguments, "filtered_resps": responses, **more}


CHOICES = [("Q", " one"), ("Q", " two"), ("Q", " three")]
LIKELIHOODS = [(-1.0, False), (-2.0, False), (-3.0, True)]


@pytest.mark.parametrize(
    ("target", "multiple_input", "text", "bits", "expected_chance"),
    [(1, 0, " two", 2, 1 / 3), ("three", 0, " three", 3, 1 / 3), ([0, 2], 0, " one", 1, 2 / 3), (0, 3, " three", 3, 1 / 3)],
)
def test_the_right_choice(target, multiple_input, text, bits, expected_chance):
    task, sample = make_task("multiple_choice", multiple_input=multiple_input), make_sample(target, CHOICES, LIKELIHOODS)
    answer = right_answer(task, sample)
    assert (answer.prompt, answer.text) == ("Q", text)
    assert answer.bits == pytest.approx(bits / math.log(2))
    assert answer.bpb == pytest.approx(bits / math.log(2) / len(text.strip()))
    assert chance(task, sample) == pytest.approx(expected_chance)


@pytest.mark.parametrize("target", [7, -100, "four"])
def test_a_row_that_names_none_of_its_choices(target):
    assert right_answer(make_task("multiple_choice"), make_sample(target, CHOICES, LIKELIHOODS)) is None


@pytest.mark.parametrize(
    ("target", "delimiter", "expected"),
    [
        ("yes", " ", Answer("P", " yes")),
        (["a", "b"], "", Answer("P", "a")),
        (42.5, " ", Answer("P", " 42.5")),
        ("  ", " ", None),
        ([], " ", None),
    ],
)
def test_an_answer_that_is_written(target, delimiter, expected):
    answer = right_answer(make_task("generate_until", (), delimiter=delimiter), make_sample(target, [("P", {})], ["x"]))
    assert answer == expected
    assert answer is None or answer.bpb is None


def test_texts_and_continuations():
    continuation = right_answer(make_task("loglikelihood"), make_sample(" word", [("P", " word")], [(-4.0, True)]))
    assert continuation.bpb == pytest.approx(1 / math.log(2))
    rolling = make_sample("text", [("text",)], [-8.0], filter="none", metrics=["bits_per_byte", "acc"], bits_per_byte=(-8.0, 4), acc=True)
    found = items(make_task("loglikelihood_rolling"), [rolling], {3}, {})
    assert found[0].bpb == pytest.approx(2 / math.log(2))
    assert (found[0].scores, found[0].truncated, found[0].chance) == ({"acc,none": 1.0}, True, None)


def test_bytes_and_means():
    assert [answer_bytes(text) for text in (" A", "\né ", "  ")] == [1, 3, 1]
    assert mean([1.0, 2.0]) == 1.5
    assert mean([1.0, None]) is None
    assert mean([]) is None


@pytest.mark.parametrize(
    ("question", "binary", "expected"),
    [
        ("Which?\nOptions:\n(A) this\n(B) that\n(C) none", False, 1 / 3),
        ("Is it so?\nOptions:\n- Yes\n- No", True, 1 / 2),
        ("not True is", True, 1 / 2),
        ("Sort the words: b a\n- one\n- two", False, 0.0),
        ("How many?", False, 0.0),
    ],
)
def test_chance_of_an_answer_that_is_written(question, binary, expected):
    task, sample = make_task("generate_until", ()), make_sample("x", [("P", {})], ["x"], metrics=["exact_match"])
    sample["doc"] = {"text": question}
    assert chance(task, sample, binary) == pytest.approx(expected)
    assert chance(task, {**sample, "metrics": ["rouge"]}, binary) is None


def test_pairs_of_answers():
    assert is_binary(["Yes", "no", "yes"])
    assert not is_binary(["yes", "(A)"])
    assert not is_binary(["True", "no"])
