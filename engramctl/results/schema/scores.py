"""Columns of benchmark scores and of their items."""

import pyarrow as pa

from engramctl.results.schema.columns import INT, REAL, TEXT, Column, schema_of

EVAL_COLUMNS: tuple[Column, ...] = (
    # of the trial
    Column("trial_id", TEXT, "", "Hash of the trial's config, 12 hexadecimal digits"),
    Column("size", TEXT, "", "Named model size"),
    Column("rho", REAL, "fraction", "Share of the inactive parameters given to routed experts"),
    Column("variant", TEXT, "", "Labels of the sweep's further axes"),
    Column("seed", INT, "", "Seed of initialisation and data order"),
    Column("budget_flops", REAL, "FLOPs", "Training compute of the trial"),
    # of the task
    Column("request", TEXT, "", "Task or group as it was asked for; its rows are one file"),
    Column("task", TEXT, "", "Task or group of this row"),
    Column("group", TEXT, "", "Group that the row belongs to; empty for the one that was asked for"),
    Column("is_group", pa.bool_(), "", "Whether the row is the mean of a group's tasks"),
    Column("length", INT, "tokens", "Length of RULER's samples, the answer included; null elsewhere", nullable=True),
    # scores
    Column("metric", TEXT, "", "Metric of `score`: the first that the task lists"),
    Column("filter", TEXT, "", "What was done to the model's answers before; none: nothing"),
    Column("score", REAL, "% or as the metric", "Score; shares (accuracy, exact match, RULER) as percent", nullable=True),
    Column("stderr", REAL, "as score", "Standard error of `score` over the items", nullable=True),
    Column("is_percent", pa.bool_(), "", "Whether score, stderr, chance and floor are percent"),
    Column("higher_is_better", pa.bool_(), "", "Direction of the metric"),
    Column(
        "chance",
        REAL,
        "as score",
        "Score of a guess among the choices, 0 where an answer is free; null where it has no meaning",
        nullable=True,
    ),
    Column("floor", REAL, "as score", "RULER: score of an answer that repeats the end of its prompt; null elsewhere", nullable=True),
    Column(
        "bpb", REAL, "bits/byte", "Bits for each byte of the right answer, mean over items; null without one right answer", nullable=True
    ),
    Column("others", TEXT, "JSON", "All other metrics of the task: METRIC,FILTER -> score and stderr, on lm-eval's scale"),
    Column("n", INT, "items", "Items that were scored"),
    Column("truncated_share", REAL, "fraction", "Items whose prompt lost tokens at its beginning for not fitting max_length"),
    # settings
    Column("fewshot", INT, "examples", "Examples in the prompts"),
    Column("limit", INT, "items", "Most items of a task that were asked for; null: all", nullable=True),
    Column("max_length", INT, "tokens", "Most tokens that the model read at a time"),
    Column("version", TEXT, "", "Version of the task's definition"),
    Column("settings", TEXT, "JSON", "All that was asked for: equal settings are not scored twice"),
    # cost, of the whole request
    Column("wall_s", REAL, "s", "Time of the request, data and scores included"),
    Column("tokens_asked", INT, "tokens", "Tokens of all its prompts and answers"),
    Column("tokens_run", INT, "tokens", "Tokens that went through the model: common beginnings once"),
    # origin
    Column("lm_eval", TEXT, "", "Version of lm-eval"),
    Column("git_sha", TEXT, "", "Commit of the code that scored; null outside a repository", nullable=True),
    Column("device", TEXT, "", "Device that scored"),
    Column("precision", TEXT, "", "Precision of the matrix multiplications"),
    Column("finished_at", TEXT, "ISO 8601, UTC", "When it was scored"),
)

EVAL_ITEM_COLUMNS: tuple[Column, ...] = (
    Column("task", TEXT, "", "Task"),
    Column("doc_id", INT, "", "Number of the item in the task's data"),
    Column("doc_hash", TEXT, "", "Hash of the item: equal in two trials when the question is"),
    Column("score", REAL, "% or as the metric", "Score of the item in the task's metric", nullable=True),
    Column("bpb", REAL, "bits/byte", "Bits for each byte of the right answer", nullable=True),
    Column("chance", REAL, "as score", "Score of a guess", nullable=True),
    Column("truncated", pa.bool_(), "", "Whether the prompt lost tokens at its beginning"),
)

EVAL_SCHEMA = schema_of(EVAL_COLUMNS)
"""Arrow schema of evals/*.parquet."""
EVAL_ITEM_SCHEMA = schema_of(EVAL_ITEM_COLUMNS)
"""The same of eval_items/*.parquet."""
