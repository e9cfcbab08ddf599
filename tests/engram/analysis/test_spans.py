import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.analysis.spans import SpannedText, probes, read_spans, tokens_of
from engram.errors import UserError
from engram.tokenizer.bpe import train_bpe


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["New York is not Old York", "val_loss, naïve 東京"] * 3, 300)


def test_documents_of_a_file(tmp_path):
    file = tmp_path / "spans.jsonl"
    lines = [{"text": "New York\u2028is", "spans": [[0, 8]], "source": "x"}, {"text": "", "spans": []}]
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n", encoding="utf-8")
    assert read_spans(file) == [SpannedText("New York\u2028is", ((0, 8),)), SpannedText("", ())]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON; expected is {"),
        ('"text"', "line 2 needs a text and a list of spans"),
        ('{"text": "ab"}', "line 2 needs a text and a list of spans"),
        ('{"text": 3, "spans": []}', "line 2 needs a text and a list of spans"),
        ('{"text": "ab", "spans": [[0]]}', "line 2: span [0] is not [start, end] in characters"),
        ('{"text": "ab", "spans": [[0, true]]}', "line 2: span [0, true] is not"),
        ('{"text": "ab", "spans": [[0, 3]]}', "line 2: span [0, 3] is not inside its text of 2 characters, or is empty"),
        ('{"text": "ab", "spans": [[1, 1]]}', "or is empty"),
        ('{"text": "ab", "spans": [[-1, 1]]}', "is not inside its text"),
        ('{"text": "a\\ud800b", "spans": [[0, 1]]}', "line 2: the text has half a surrogate pair"),
    ],
)
def test_mistakes_in_a_file(tmp_path, line, message):
    file = tmp_path / "spans.jsonl"
    file.write_text('{"text": "a", "spans": [[0, 1]]}\n' + line)
    with pytest.raises(UserError) as caught:
        read_spans(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_without_spans(tmp_path):
    with pytest.raises(UserError, match="can't be read: No such file"):
        read_spans(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UserError, match="has no span; expected are lines"):
        read_spans(tmp_path / "empty")
    (tmp_path / "latin").write_bytes(b'{"text": "na\xefve", "spans": [[0, 1]]}')
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read_spans(tmp_path / "latin")


@settings(max_examples=100, deadline=None)
@given(st.text("NewYorkval_s ï東,", min_size=1, max_size=20), st.data())
def test_the_token_of_a_spans_last_character(text, data):
    tokenizer = train_bpe(["New York is not Old York", "val_loss, naïve 東京"] * 3, 300)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    encoding = tokenizer.encode(text, add_special_tokens=False)
    found = probes([SpannedText("x", ()), SpannedText(text, ((start, end),))], tokenizer)
    assert found.document.tolist() == [1]
    assert found.documents[1].tolist() == encoding.ids
    holders = [i for i, (first, last) in enumerate(encoding.offsets) if first < end and last >= end]
    assert found.position.tolist() == [max(holders)]
    touched = sum(first < end and last > start for first, last in encoding.offsets)
    assert tokens_of([(start, end)], encoding.offsets).tolist() == [touched]


def test_spans_that_end_together_count_once(tokenizer):
    found = probes([SpannedText("New York", ((0, 8), (4, 8), (0, 3)))], tokenizer)
    assert found.document.tolist() == [0, 0]
    assert np.all(np.diff(found.position) > 0)
