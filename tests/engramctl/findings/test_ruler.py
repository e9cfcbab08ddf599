import pandas as pd
import pytest

from engramctl.findings.ruler import category_scores, matched
from engramctl.present.figures.ruler import ruler_figure
from engramctl.present.tables.scores import ruler_table
from tests.engramctl.made_scores import cells, frame, score


def ruler_scores():
    """Two values of rho at two budgets; the larger rho needs the larger budget for the loss of the smaller one."""
    trials = pd.DataFrame(
        {
            "trial_id": ["a1", "b1", "a2", "b2"],
            "budget_flops": [1e12, 1e12, 2e12, 2e12],
            "val_loss": [3.00, 3.10, 2.90, 2.995],
        }
    )
    rho = {"a": 0.5, "b": 1.0}
    rows = [
        score(
            trial_id=trial, rho=rho[trial[0]], budget_flops=float(trial[1]) * 1e12, request="ruler", task=task,
            group="ruler", is_group=False, length=length, score=value + length / 100, floor=4.0, chance=None, settings=f"{length}",
        )
        for trial, value in (("a1", 10.0), ("b1", 20.0), ("a2", 30.0), ("b2", 40.0))
        for task in ("niah_single_1", "niah_single_2", "vt")
        for length in (512, 1024)
    ]  # fmt: skip
    extended = [{**row, "trial_id": "e" + row["trial_id"], "score": row["score"] + 5} for row in rows]
    return trials, frame(*rows, *extended)


def test_trials_are_matched_by_compute_and_by_loss():
    trials, scores = ruler_scores()
    sources = {f"e{one}": one for one in trials["trial_id"]}
    rows = category_scores(scores, trials, sources)
    assert set(rows["category"]) == {"Single NIAH", "VT"}
    assert len(rows) == 8 * 2 * 2
    one = rows[(rows["trial_id"] == "ea1") & (rows["category"] == "VT") & (rows["length"] == 512)].iloc[0]
    assert (one["source_id"], one["extended"], one["budget_flops"], one["val_loss"]) == ("a1", True, 1e12, 3.0)
    assert one["score"] == pytest.approx(10 + 5.12 + 5)
    groups = matched(rows)
    assert set(groups["equal FLOPs"]["source_id"]) == {"a2", "b2"}
    assert set(groups["equal loss"]["source_id"]) == {"a1", "b2"}
    figure = ruler_figure(groups)
    assert len(figure.subfigs) == 2
    assert [axes.get_title(loc="left") for axes in figure.subfigs[0].axes] == ["Single NIAH", "VT"]
    assert len(figure.subfigs[1].axes[0].lines) == 2 * 2 + 1
    table = cells(ruler_table("equal loss", groups["equal loss"]))
    assert table[0] == ["Single NIAH"] * 5 + ["VT"] * 5
    assert table[1][4] == "echo"


def test_one_rho_is_no_comparison():
    trials, scores = ruler_scores()
    assert matched(category_scores(scores[scores["rho"] == 1], trials, {})) == {}
    assert matched(category_scores(scores.iloc[:0], trials, {})) == {}
