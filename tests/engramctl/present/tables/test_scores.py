from engramctl.present.tables.scores import remarks, score_table
from tests.engramctl.made_scores import cells, frame, score


def test_one_model_shows_the_groups_in_it():
    rows = frame(
        score(),
        score(task="mmlu_stem", group="mmlu"),
        score(task="mmlu_anatomy", group="mmlu_stem", is_group=False),
        score(request="ruler", task="ruler", length=512, floor=4.0, chance=None),
        score(request="ruler", task="vt", group="ruler", is_group=False, length=512, floor=8.0, chance=None, truncated_share=0.5),
    )
    columns = cells(score_table(rows))
    assert columns[0] == ["mmlu", "  mmlu_stem", "ruler 512", "  vt"]
    assert columns[4] == ["25.0", "25.0", "4.0*", "8.0*"]
    assert remarks(rows) == ["* of an answer that repeats the end of its prompt"]


def test_several_models_show_what_was_asked_for():
    rows = frame(
        *(score(trial_id=f"t{rho}", rho=rho) for rho in (1, 0)),
        score(trial_id="t1", rho=1, task="mmlu_stem", group="mmlu"),
        score(trial_id="t1", rho=1, request="tag", task="one", is_group=False, is_percent=False, score=3.25, higher_is_better=False),
    )
    columns = cells(score_table(rows))
    assert columns[0] == ["mmlu", "mmlu", "one"]
    assert columns[2] == ["0.00", "1.00", "1.00"]
    assert columns[4] == ["30.0", "30.0", "3.25"]
