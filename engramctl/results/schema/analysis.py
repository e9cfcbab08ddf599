"""Columns of the tables in `analysis/`, one table per kind of finding."""

import pyarrow as pa

from engramctl.results.schema.columns import INT, REAL, TEXT, Column, schema_of

_MODEL = (
    Column("trial_id", TEXT, "", "Hash of the trial's config, 12 hexadecimal digits"),
    Column("model", TEXT, "", "Size, variant, rho and seed of the trial, for a person"),
)
_HEAD = (
    Column("table_set", INT, "", "Number of the set of tables: of most designs one for each memory layer, in their order"),
    Column("order", INT, "tokens", "Length of the N-grams of the head"),
    Column("head", INT, "", "Number of the head within its order, from 0"),
)
_SITE = (
    Column("layer", INT, "", "Layer with a memory, counted from 0"),
    Column("branch", INT, "", "Residual branch, from 0"),
)


def _interval(name: str, unit: str, meaning: str) -> tuple[Column, ...]:
    """An estimate with the bounds of its 95 % interval."""
    return (
        Column(name, REAL, unit, meaning, nullable=True),
        Column(f"{name}_low", REAL, unit, f"Lower bound of the 95 % interval of {name}", nullable=True),
        Column(f"{name}_high", REAL, unit, f"Upper bound of the 95 % interval of {name}", nullable=True),
    )


DEPTH_COLUMNS: tuple[Column, ...] = (
    Column("trial_a", TEXT, "", "Trial id of A"),
    Column("trial_b", TEXT, "", "Trial id of B"),
    Column("model_a", TEXT, "", "A for a person"),
    Column("model_b", TEXT, "", "B for a person"),
    Column("quantity", TEXT, "", "divergence_a, divergence_b (nats), similarity (CKA, at most 1) or alignment (layers of A, from 0)"),
    Column("layer_a", INT, "", "Layer of A, from 0; null where the quantity is of B alone or of all layers of A", nullable=True),
    Column("layer_b", INT, "", "Layer of B, from 0; null where the quantity is of A alone", nullable=True),
    *_interval("value", "as quantity", "The quantity"),
    Column("spans", TEXT, "", "Where the spans come from: the file's name, or names in the validation text"),
    Column("n_tokens", INT, "tokens", "Final tokens of spans that were compared"),
    Column("n_documents", INT, "documents", "Documents that they are in"),
)

GATE_COLUMNS: tuple[Column, ...] = (
    *_MODEL,
    *_SITE,
    Column("grouping", TEXT, "", "How tokens are put into groups"),
    Column("label", TEXT, "", "Group within the grouping"),
    Column("n_tokens", INT, "tokens", "Tokens in the group"),
    *_interval("gate", "", "Mean gate: 0 shut, 1 open; of the design value from 0 to 2"),
)

PHRASE_COLUMNS: tuple[Column, ...] = (
    *_MODEL,
    Column("layer", INT, "", "Layer with a memory, counted from 0"),
    Column("rank", INT, "", "Place of the phrase, from 1: the highest mean gate first"),
    Column("text", TEXT, "", "An N-gram of the validation text, of the longest order that the memory reads"),
    Column("gate", REAL, "", "Mean gate at its last token, over its occurrences and the branches"),
    Column("occurrences", INT, "", "Occurrences in the validation text"),
)

GATETEXT_COLUMNS: tuple[Column, ...] = (
    *_MODEL,
    *_SITE,
    Column("position", INT, "tokens", "Place of the token in the text, from 0"),
    Column("token", TEXT, "", "What the token stands for"),
    Column("gate", REAL, "", "Gate at the token"),
)

SUPPRESS_COLUMNS: tuple[Column, ...] = (
    *_MODEL,
    Column("grouping", TEXT, "", "How targets are put into groups"),
    Column("label", TEXT, "", "Group within the grouping"),
    Column("n_tokens", INT, "tokens", "Targets in the group"),
    *_interval("loss_on", "nats/token", "Mean validation loss of the model as it is"),
    *_interval("loss_off", "nats/token", "The same with the output of every memory set to zero"),
    *_interval("difference", "nats/token", "loss_off - loss_on, documents paired: above zero, the memory helps"),
    *_interval("retained", "fraction", "exp(loss_on - loss_off): what is left of the right token's probability without the memory"),
)

SUPPRESS_TASK_COLUMNS: tuple[Column, ...] = (
    *_MODEL,
    Column("task", TEXT, "", "Task or group of tasks"),
    Column("group", TEXT, "", "Group that the row belongs to; empty for the one that was asked for"),
    Column("is_group", pa.bool_(), "", "Whether the row is the mean of a group's tasks"),
    Column("metric", TEXT, "", "Metric of the scores: the first that the task lists"),
    Column("score_on", REAL, "as metric", "Score of the model as it is, on lm-eval's scale: accuracies from 0 to 1", nullable=True),
    Column("stderr_on", REAL, "as metric", "Standard error of score_on over the items", nullable=True),
    Column("score_off", REAL, "as metric", "Score with the output of every memory set to zero", nullable=True),
    Column("stderr_off", REAL, "as metric", "Standard error of score_off over the items", nullable=True),
    *_interval(
        "retained", "fraction", "score_off / score_on; its interval draws items again and is null where the score is no mean of items"
    ),
    Column("chance", REAL, "as metric", "Score of a guess: a model that guesses retains all", nullable=True),
    Column("bpb_on", REAL, "bits/byte", "Bits for each byte of the right answer, mean over items", nullable=True),
    Column("bpb_off", REAL, "bits/byte", "The same without the memory", nullable=True),
    Column("n", INT, "items", "Items that were scored"),
    Column("limit", INT, "items", "Most items of a task that were asked for; null: all", nullable=True),
    Column("max_length", INT, "tokens", "Most tokens that the model read at a time"),
)

HEAD_COLUMNS: tuple[Column, ...] = (
    *_MODEL,
    *_HEAD,
    Column("rows", INT, "rows", "Rows of the head's table"),
    Column("rows_touched", INT, "rows", "Rows that the training text reads at all"),
    Column("distinct_ngrams", INT, "", "Distinct N-grams of the order in the training text"),
    Column("ngrams_per_row", REAL, "", "N-grams that share a row, mean over the rows touched"),
    Column("shared_reads", REAL, "fraction", "Reads whose row also holds another N-gram of the text: collisions"),
    Column("owner_reads", REAL, "fraction", "Reads that are of the N-gram that reads their row most"),
    Column("hottest_share", REAL, "fraction", "Reads that go to the most-read 1 % of the rows"),
    *_interval("loss_alone", "nats/token", "Validation loss with the rows of this head alone, all others zero"),
    *_interval("share_alone", "fraction", "What the head brings alone, of what all bring together; shares do not add up to 1"),
    Column("loss_all", REAL, "nats/token", "Validation loss with all heads"),
    Column("loss_none", REAL, "nats/token", "Validation loss with all rows zero"),
)

ROW_COLUMNS: tuple[Column, ...] = (
    *_MODEL,
    *_HEAD,
    Column("curve", TEXT, "", "zipf (reads of the row of a rank) or norm (mean norm of the rows of so many reads)"),
    Column("rank", INT, "", "Rank of the row by its reads, from 1; null in norm", nullable=True),
    Column("reads", INT, "reads", "Reads of that row; in norm the least reads of the group, which ends at twice as many"),
    Column("n_rows", INT, "rows", "Rows in the group; null in zipf", nullable=True),
    Column("norm", REAL, "", "Mean Euclidean norm of the rows of the group; null in zipf", nullable=True),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "depth": DEPTH_COLUMNS,
    "gates": GATE_COLUMNS,
    "gate_phrases": PHRASE_COLUMNS,
    "gate_text": GATETEXT_COLUMNS,
    "suppress": SUPPRESS_COLUMNS,
    "suppress_tasks": SUPPRESS_TASK_COLUMNS,
    "memory": HEAD_COLUMNS,
    "memory_rows": ROW_COLUMNS,
}
"""Columns by kind: a table is `analysis/<trial>.<kind>.parquet`."""

SCHEMAS = {kind: schema_of(columns) for kind, columns in TABLES.items()}
"""Their Arrow schemas."""
