import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.analysis.windows import reading_windows


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(2, 17), st.data())
def test_a_token_has_half_a_window_of_its_document_before_it(lengths, length, data):
    documents = [1000 * (number + 1) + np.arange(n) for number, n in enumerate(lengths)]
    wanted = [(number, data.draw(st.integers(0, n - 1))) for number, n in enumerate(lengths) for _ in range(3)]
    document, position = np.array(wanted).T
    windows = reading_windows(documents, document, position, length)
    half = length // 2
    assert windows.tokens.shape[1] == 2 * half
    assert len(np.unique(windows.window)) == len(windows.tokens)
    for number, place, window, at in zip(document, position, windows.window, windows.place, strict=True):
        assert at >= min(place, half)
        assert np.array_equal(windows.tokens[window, : at + 1], documents[number][place - at : place + 1])
