import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engram.corpus.windows import text_windows


def naive(texts, width):
    """(document, place, window) of every window, white space left out."""
    dense = ["".join(text.split()).encode() for text in texts]
    return [(d, i, text[i : i + width]) for d, text in enumerate(dense) for i in range(len(text) - width + 1)]


@given(st.lists(st.text("ab \n\tä"), min_size=1, max_size=5), st.integers(1, 6))
def test_windows_lie_within_a_document_and_skip_white_space(texts, width):
    found = text_windows([text.encode() for text in texts], width, 1)
    expected = naive(texts, width)
    assert list(zip(found.document, found.place, strict=True)) == [(d, i) for d, i, _ in expected]
    assert len(set(zip(found.hash.tolist(), (w for _, _, w in expected), strict=True))) == len({w for *_, w in expected})


def test_a_sample_takes_the_same_windows_everywhere():
    generator = np.random.default_rng(0)
    texts = [bytes(generator.integers(97, 123, size=4000, dtype=np.uint8)) for _ in range(3)]
    whole, sample = text_windows(texts, 20, 1), text_windows(texts, 20, 8)
    assert 0.1 < len(sample.hash) / len(whole.hash) < 0.15
    assert set(sample.hash.tolist()) == {number for number in whole.hash.tolist() if number % 8 == 0}
    moved = text_windows([b"shifted by a few" + texts[1]], 20, 8)
    assert set(sample.hash[sample.document == 1].tolist()) <= set(moved.hash.tolist())
