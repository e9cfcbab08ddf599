import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from engram.errors import UserError
from engram.tokenizer.bpe import END_OF_TEXT, end_of_text_id, fingerprint, load_tokenizer, train_bpe, vocabulary_size

TEXTS = [f"def function_{i}(value):\n    return value + {i}  # naïve\n" for i in range(200)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, 400)


def test_the_same_texts_give_the_same_tokenizer(tokenizer, tmp_path):
    again = train_bpe(iter(TEXTS), 400)
    assert fingerprint(again) == fingerprint(tokenizer) != fingerprint(train_bpe(TEXTS, 300))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert fingerprint(load_tokenizer(str(tmp_path / "tokenizer.json"))) == fingerprint(tokenizer)


def test_end_of_text_is_0_and_every_byte_has_a_token(tokenizer):
    assert end_of_text_id(tokenizer) == tokenizer.token_to_id(END_OF_TEXT) == 0
    assert vocabulary_size(train_bpe([""], 257)) == 257


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_comes_back(tokenizer, text):
    tokenizer.encode_special_tokens = True
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_end_of_text_tokens_of_other_families():
    other = Tokenizer(models.WordLevel({"a": 0, "[SEP]": 1, "</s>": 2}, unk_token="a"))
    assert end_of_text_id(other) == 2
    with pytest.raises(UserError, match="no end-of-document token"):
        end_of_text_id(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))


def test_gaps_in_the_ids_count():
    assert vocabulary_size(Tokenizer(models.WordLevel({"a": 0, "b": 9}, unk_token="a"))) == 10


def test_truncation_and_padding_of_a_file_are_switched_off(tokenizer, tmp_path):
    short = Tokenizer.from_str(tokenizer.to_str())
    short.enable_truncation(2)
    short.enable_padding(length=50)
    short.save(str(tmp_path / "tokenizer.json"))
    assert len(load_tokenizer(str(tmp_path / "tokenizer.json")).encode("x y z u v w").ids) == 11


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_file_that_is_no_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer\.json") as mistake:
        load_tokenizer(str(path))
    assert "\n" not in str(mistake.value)


def test_mistakes_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"vocab_size is 256; .* at least 257"):
        train_bpe(TEXTS, 256)
    with pytest.raises(UserError, match="at most 10,000,000 tokens"):
        train_bpe(TEXTS, 10**30)
    with pytest.raises(UserError, match="is not a file"):
        load_tokenizer(str(tmp_path / "missing.json"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"^tokenizer hf:some/name: .* does not answer"):
        load_tokenizer("hf:some/name")
