import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from engram.evaluation.ruler import Sample, sources

TOKEN = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")
SYLLABLES = ("ba", "de", "fi", "go", "lu", "mer", "nor", "pas", "tin", "wo")


@pytest.fixture(scope="session")
def encode() -> Callable[[str], list[str]]:
    """Runs of letters, digits and marks, one token each."""
    return TOKEN.findall


def _json_line(sample: Sample) -> str:
    fields: dict[str, object] = {
        "index": sample.index,
        "input": sample.input,
        "outputs": list(sample.outputs),
        "length": sample.length,
        # The length with a chat template, for which no room is reserved here.
        "length_w_model_temp": sample.length,
        "answer_prefix": sample.answer_prefix,
    }
    if sample.token_position_answer is not None:
        fields["token_position_answer"] = sample.token_position_answer
    return json.dumps(fields)


@pytest.fixture(scope="session")
def json_line() -> Callable[[Sample], str]:
    """A sample's line of `validation.jsonl`, without its newline, byte for byte as RULER writes it."""
    return _json_line


def prose(random: random.Random, words: int) -> str:
    return " ".join("".join(random.choices(SYLLABLES, k=random.randint(1, 3))) for _ in range(words))


def sentences(random: random.Random, count: int) -> list[str]:
    return [f"{prose(random, random.randint(3, 12)).capitalize()}." for _ in range(count)]


@pytest.fixture(scope="session")
def essay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("essay") / "essay.txt"
    path.write_text("\n".join(sentences(random.Random(1), 300)))
    return path


@pytest.fixture(scope="session")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dice = random.Random(2)

    def paragraph() -> dict[str, object]:
        qas = [
            {
                "question": f"{prose(dice, 8)}?",
                "is_impossible": dice.random() < 0.4,
                "answers": [{"text": prose(dice, 2)} for _ in range(3)],
            }
            for _ in range(3)
        ]
        return {"context": prose(dice, dice.randint(10, 60)), "qas": qas}

    articles = [{"title": prose(dice, 1), "paragraphs": [paragraph() for _ in range(dice.randint(3, 20))]} for _ in range(12)]
    path = tmp_path_factory.mktemp("squad") / "squad.json"
    path.write_text(json.dumps({"data": articles}))
    return path


@pytest.fixture(scope="session")
def hotpotqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dice = random.Random(3)
    rows = [
        {
            "question": f"{prose(dice, 9)}?",
            "answer": prose(dice, 2),
            "context": [[prose(dice, 2), sentences(dice, dice.randint(1, 4))] for _ in range(10)],
        }
        for _ in range(20)
    ]
    path = tmp_path_factory.mktemp("hotpotqa") / "hotpotqa.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def plain_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences end with a full stop: NLTK's model is a download."""
    monkeypatch.setattr(sources, "split_sentences", lambda text: re.split(r"(?<=\.) ", text))
