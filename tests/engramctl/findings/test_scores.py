from engramctl.findings.scores import comparable
from tests.engramctl.made_scores import frame, score


def test_the_settings_that_most_trials_have_are_shown():
    rows = frame(score(trial_id="a"), score(trial_id="b"), score(trial_id="b", settings="new", limit=3, finished_at="2026-02-01"))
    shown, lines = comparable(rows, ["a", "b"])
    assert shown["settings"].tolist() == ["a", "a"]
    assert comparable(rows, ["c"]) == (None, [])
    assert lines == ["mmlu: scores with other settings are left out; shown: 100 items, 5 examples, 64 tokens read"]
