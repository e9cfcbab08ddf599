from pathlib import Path

import pytest

from engramctl.results.score_requests import Settings, requests_for


def test_scores_depend_on_their_own_settings_only():
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

    def identities(**changed):
        settings = Settings(**{"limit": 3, "fewshot": 2, **changed})
        return [request.identity(64) for request in requests_for(["mmlu", "ruler"], [512, 1024], settings)]

    mmlu, short, long = identities()
    assert (short["length"], long["length"]) == (512, 1024)
    assert identities(data=Path("/d"))[1:] == [short, long]
    assert identities(haystack=(Path("/h"),))[0] == mmlu
    assert identities(limit=4) != identities()
    assert identities(offline=True) == [mmlu, short, long]
