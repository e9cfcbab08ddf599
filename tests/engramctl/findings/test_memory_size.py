import pandas as pd
import pytest

from engramctl.findings.memory_size import judge


@pytest.mark.parametrize(
    ("touched", "owners", "verdict"), [(1.0, 0.4, "too small"), (1.0, 0.7, "fits"), (0.2, 0.97, "too large"), (0.2, 0.8, "fits")]
)
def test_judgement(touched, owners, verdict):
    heads = pd.DataFrame({"order": [2, 3], "rows": [100, 100], "ngrams_per_row": [3.0, 4.0]})
    heads = heads.assign(rows_touched=100 * touched, owner_reads=owners)
    found = judge(heads)
    assert found.verdict == verdict
    assert f"2-grams {100 * owners:.0f} % (3.0 to a row)" in found.text
