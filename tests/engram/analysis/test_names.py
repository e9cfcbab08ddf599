import pytest

from engram.analysis.names import names_in, validation_names
from engram.errors import UserError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("in New York, a city", ["New York"]),
        ("the New  York", ["New", "York"]),
        ("def val_loss(self, maxNgram):", ["val_loss", "maxNgram"]),
        ("class HyperHead(Module):", ["HyperHead", "Module"]),
        ("Alan Turing val_loss Grace Hopper", ["Alan Turing", "val_loss", "Grace Hopper"]),
        ("_private and __init__ and x2", []),
        ("MAX_TOKENS = 3_000", ["MAX_TOKENS"]),
        ("Émile Zola", ["Émile Zola"]),
        ("l'ÉCOLE Normale", ["ÉCOLE Normale"]),
        ("", []),
    ],
)
def test_names_and_identifiers(text, names):
    assert [text[start:end] for start, end in names_in(text)] == names


def test_names_of_a_validation_split(restore, code_corpus):
    restored = restore(code_corpus)
    tokenizer = restored.tokenizer
    texts = validation_names(restored, code_corpus)
    assert 1 < len(texts) <= len(code_corpus.val_doc_ids)
    for text in texts:
        names = [text.text[start:end] for start, end in text.spans]
        assert len(set(names)) == len(names)
        assert {"read", "self", "return"}.isdisjoint(names)
        for name, (start, end) in zip(names, text.spans, strict=True):
            assert text.text.index(name) == start
            assert sum(a < end and b > start for a, b in tokenizer.encode(text.text).offsets) > 1
    few = validation_names(restored, code_corpus, max_spans=5)
    assert sum(len(text.spans) for text in few) == 5
    assert few == validation_names(restored, code_corpus, max_spans=5)
    assert few != validation_names(restored, code_corpus, max_spans=5, seed=1)


def test_text_without_names(restore, tiny_corpus, code_corpus):
    with pytest.raises(UserError, match=r"^the validation text has no name or identifier of two tokens or more; give a file of spans$"):
        validation_names(restore(tiny_corpus), tiny_corpus)
    with pytest.raises(UserError, match="was trained with tokenizer"):
        validation_names(restore(tiny_corpus), code_corpus)
