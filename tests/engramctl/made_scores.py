"""Made-up rows of benchmark scores, and the cells of a table, for tests."""

import pandas as pd

from engramctl.results.schema.scores import EVAL_COLUMNS


def score(**columns):
    """A whole row of the scores table; any column can be given."""
    row = {
        "trial_id": "aa", "size": "1m", "rho": 0.5, "variant": "", "seed": 0, "budget_flops": 1e12, "request": "mmlu", "task": "mmlu",
        "group": "", "is_group": True, "length": None, "metric": "acc", "filter": "none", "score": 30.0, "stderr": 1.0, "is_percent": True,
        "higher_is_better": True, "chance": 25.0, "floor": None, "bpb": 2.0, "others": "{}", "n": 100, "truncated_share": 0.0, "fewshot": 5,
        "limit": None, "max_length": 64, "version": "1", "settings": "a", "wall_s": 1.0, "tokens_asked": 10, "tokens_run": 5,
        "lm_eval": "0.4.13", "git_sha": None, "device": "cpu", "precision": "fp32", "finished_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return row | columns


def frame(*rows):
    """Rows as a scores table."""
    return pd.DataFrame(list(rows), columns=[column.name for column in EVAL_COLUMNS])


def cells(table):
    """The cells of a Rich table, column by column."""
    return [[str(cell) for cell in column.cells] for column in table.columns]
