"""The schema of every table in a results folder: names, Arrow types, units and meaning, in one place.

The writer, the readers, the Parquet metadata and docs/results.md all follow these tuples.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 5
"""Goes up when a column is added, removed, renamed or changes its type, unit or meaning."""

STATUSES = ("finished", "diverged", "failed")
"""Outcomes of a trial. `failed` trials are tried again, the others are done."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: pa.DataType
    unit: str
    """Empty for text and for pure numbers."""
    meaning: str
    nullable: bool = False


_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()

TRIAL_COLUMNS: tuple[Column, ...] = (
    # identity
    Column("trial_id", _TEXT, "", "Hash of the trial's config, 12 hexadecimal digits: the name of its files"),
    Column("sweep", _TEXT, "", "Name of the sweep: the folder of this table"),
    Column("size", _TEXT, "", "Named model size"),
    Column(
        "rho",
        _REAL,
        "fraction",
        "Share of the inactive parameters given to routed experts, as asked for (over slots: as it results); the rest is memory",
    ),
    Column("variant", _TEXT, "", "Labels of the sweep's further axes, joined by commas; empty without such axes"),
    Column("axes", _TEXT, "JSON", "Label of every further axis by its name"),
    Column("seed", _INT, "", "Seed of initialisation and data order"),
    Column("budget_flops", _REAL, "FLOPs", "Training compute that was asked for, in the count of train_flops"),
    # config
    Column("config", _TEXT, "JSON", "The whole config of the trial"),
    Column("corpus", _TEXT, "", "Corpus as it was named on the command line"),
    Column("n_layers", _INT, "layers", "Transformer layers"),
    Column("width", _INT, "numbers", "Size of the residual stream"),
    Column("n_heads", _INT, "heads", "Attention heads"),
    Column("expert_width", _INT, "numbers", "Inner width of one routed expert"),
    Column("top_k", _INT, "experts", "Routed experts that a token visits in a layer"),
    Column("n_routed_experts", _INT, "experts", "Routed experts in a layer"),
    Column("shared_width", _INT, "numbers", "Inner width of the shared expert"),
    Column("branches", _INT, "branches", "Residual branches; 1 is the plain residual stream"),
    Column("attention", _TEXT, "", "Kind of attention: mha (multi-head) or mla (multi-head latent)"),
    Column("memory_design", _TEXT, "", "How memory enters the model: engram, engram-v4.1, over-encoding, value or none"),
    Column("n_slots", _INT, "rows", "Rows of all memory tables together; 0 without memory"),
    Column("memory_dim", _INT, "numbers", "Length of the memory vector of a token; 0 without memory"),
    Column("max_ngram", _INT, "tokens", "Largest N-gram that is looked up; 0 without memory"),
    Column("hash_heads", _INT, "heads", "Hash heads for each N-gram order; 0 without memory"),
    Column("memory_layers", pa.list_(_INT), "layers", "Layers that have a memory, counted from 0 (the embedding: 0); empty without memory"),
    Column("optimizer", _TEXT, "", "Optimiser of the matrices: adamw or muon"),
    Column("schedule", _TEXT, "", "Learning rate over the training: wsd, cosine or step"),
    Column("learning_rate", _REAL, "", "Peak learning rate of the dense weights"),
    Column("batch_size", _INT, "sequences", "Sequences in an optimiser step"),
    Column("seq_len", _INT, "tokens", "Predicted tokens in a sequence"),
    Column("vocab_size", _INT, "tokens", "Tokens in the vocabulary"),
    # accounting
    Column("p_total", _INT, "parameters", "All parameters but embedding and head"),
    Column("p_active", _INT, "parameters", "Parameters of p_total that one token uses"),
    Column("p_sparse", _INT, "parameters", "Inactive parameters, p_total - p_active: what rho divides"),
    Column("p_engram", _INT, "parameters", "Parameters of the memory tables"),
    Column("p_embedding", _INT, "parameters", "Parameters of the token embedding and of the output head"),
    Column("rho_realised", _REAL, "fraction", "rho after rounding to whole experts and slots"),
    Column("steps", _INT, "steps", "Optimiser steps of the full training"),
    Column("tokens", _INT, "tokens", "Training tokens of the full training"),
    Column("train_flops", _REAL, "FLOPs", "6 p_active tokens"),
    Column("model_flops", _REAL, "FLOPs", "All matrix multiplications, head and attention included, forward and backward"),
    # outcome
    Column("val_loss", _REAL, "nats/token", "Mean validation loss at the end", nullable=True),
    Column("val_loss_se", _REAL, "nats/token", "Standard error of val_loss, clustered by document", nullable=True),
    Column("val_bpb", _REAL, "bits/byte", "Validation loss for each byte of text: does not depend on the tokenizer", nullable=True),
    Column("val_tokens", _INT, "tokens", "Validation tokens that were predicted", nullable=True),
    Column("val_documents", _INT, "documents", "Validation documents", nullable=True),
    Column("train_loss", _REAL, "nats/token", "Mean training loss over the last 5 % of the steps", nullable=True),
    Column("copy_loss", _REAL, "nats/token", "Loss on the second half of a repeated random sequence", nullable=True),
    Column(
        "loss_by_position",
        pa.list_(_REAL),
        "nats/token",
        "Mean validation loss in buckets of the position in the sequence: [0,1), [1,2), [2,4), [4,8) and so on",
        nullable=True,
    ),
    Column(
        "load_max_over_mean",
        _REAL,
        "ratio",
        "Largest expert load over the mean load, in the worst layer, mean over the last 5 % of the steps",
        nullable=True,
    ),
    Column("load_cv", _REAL, "ratio", "Coefficient of variation of the expert load, mean over the layers", nullable=True),
    Column(
        "starved_experts",
        _INT,
        "experts",
        "Experts of all layers together that no token was sent to in the last 5 % of the steps: routing that has collapsed",
        nullable=True,
    ),
    # cost
    Column("wall_s", _REAL, "s", "Time spent in optimiser steps and validations, all attempts together", nullable=True),
    Column("train_s", _REAL, "s", "Time spent in optimiser steps alone, all attempts together", nullable=True),
    Column("tokens_per_s", _REAL, "tokens/s", "Training speed", nullable=True),
    Column("peak_rss_bytes", _INT, "bytes", "Largest resident memory of the process", nullable=True),
    Column("n_restarts", _INT, "", "Times the training was continued from a checkpoint"),
    # origin
    Column("git_sha", _TEXT, "", "Commit of the code; null outside a repository", nullable=True),
    Column("corpus_fingerprint", _TEXT, "", "Hash of the corpus: its documents, order and splits"),
    Column("tokenizer_fingerprint", _TEXT, "", "Hash of the tokenizer"),
    Column("versions", _TEXT, "JSON", "Versions of Python and of the libraries that matter"),
    Column("hostname", _TEXT, "", "Machine that trained"),
    Column("devices", _INT, "processes", "Processes that trained the trial together, each on a device of its own", nullable=True),
    Column("tables", _TEXT, "", "Where the memory tables lay: process, host, disk or sharded; null without memory", nullable=True),
    Column("tables_wait_s", _REAL, "s", "Time for which the last attempt waited for rows of tables on the host or on disk", nullable=True),
    Column("tables_hit_rate", _REAL, "fraction", "Rows on disk that the last attempt found in RAM, of those it read", nullable=True),
    Column("device", _TEXT, "", "Device that trained", nullable=True),
    Column("precision", _TEXT, "", "Precision of the matrix multiplications: bf16 or fp32", nullable=True),
    Column("started_at", _TEXT, "ISO 8601, UTC", "Start of the first attempt"),
    Column("finished_at", _TEXT, "ISO 8601, UTC", "End of the last attempt"),
    Column("status", _TEXT, "", "finished, diverged (the loss left the finite numbers) or failed (will be tried again)"),
    Column("error", _TEXT, "", "Why the trial diverged or failed; null when it finished", nullable=True),
)

CURVE_COLUMNS: tuple[Column, ...] = (
    Column("step", _INT, "steps", "Optimiser steps done"),
    Column("tokens", _INT, "tokens", "Training tokens seen"),
    Column("train_loss", _REAL, "nats/token", "Mean training loss since the row before"),
    Column("learning_rate", _REAL, "", "Learning rate of the dense weights at this step"),
    Column("grad_norm", _REAL, "", "Mean norm of the gradient before clipping, since the row before"),
    Column("load_max_over_mean", _REAL, "ratio", "Largest expert load over the mean load, in the worst layer, since the row before"),
    Column("load_cv", _REAL, "ratio", "Coefficient of variation of the expert load, mean over the layers, since the row before"),
    Column("val_loss", _REAL, "nats/token", "Mean validation loss; null at steps without a validation", nullable=True),
    Column("copy_loss", _REAL, "nats/token", "Loss on the second half of a repeated random sequence; null likewise", nullable=True),
    Column(
        "expert_loads",
        pa.list_(pa.list_(_INT)),
        "tokens",
        "Tokens sent to every expert, by layer and expert, since the row before that has a validation; null likewise",
        nullable=True,
    ),
)

DOCUMENT_COLUMNS: tuple[Column, ...] = (
    Column("document", _TEXT, "", "Id of a validation document, hexadecimal; the same in all trials of a corpus"),
    Column("n_tokens", _INT, "tokens", "Predicted tokens of the document"),
    Column("n_bytes", _INT, "bytes", "UTF-8 bytes of those tokens"),
    Column("loss_sum", _REAL, "nats", "Sum of the losses of those tokens"),
)

EVAL_COLUMNS: tuple[Column, ...] = (
    # of the trial
    Column("trial_id", _TEXT, "", "Hash of the trial's config, 12 hexadecimal digits"),
    Column("size", _TEXT, "", "Named model size"),
    Column("rho", _REAL, "fraction", "Share of the inactive parameters given to routed experts"),
    Column("variant", _TEXT, "", "Labels of the sweep's further axes"),
    Column("seed", _INT, "", "Seed of initialisation and data order"),
    Column("budget_flops", _REAL, "FLOPs", "Training compute of the trial"),
    # of the task
    Column("request", _TEXT, "", "Task or group as it was asked for; its rows are one file"),
    Column("task", _TEXT, "", "Task or group of this row"),
    Column("group", _TEXT, "", "Group that the row belongs to; empty for the one that was asked for"),
    Column("is_group", pa.bool_(), "", "Whether the row is the mean of a group's tasks"),
    Column("length", _INT, "tokens", "Length of RULER's samples, the answer included; null elsewhere", nullable=True),
    # scores
    Column("metric", _TEXT, "", "Metric of `score`: the first that the task lists"),
    Column("filter", _TEXT, "", "What was done to the model's answers before; none: nothing"),
    Column("score", _REAL, "% or as the metric", "Score; shares (accuracy, exact match, RULER) as percent", nullable=True),
    Column("stderr", _REAL, "as score", "Standard error of `score` over the items", nullable=True),
    Column("is_percent", pa.bool_(), "", "Whether score, stderr, chance and floor are percent"),
    Column("higher_is_better", pa.bool_(), "", "Direction of the metric"),
    Column(
        "chance",
        _REAL,
        "as score",
        "Score of a guess among the choices, 0 where an answer is free; null where it has no meaning",
        nullable=True,
    ),
    Column("floor", _REAL, "as score", "RULER: score of an answer that repeats the end of its prompt; null elsewhere", nullable=True),
    Column(
        "bpb", _REAL, "bits/byte", "Bits for each byte of the right answer, mean over items; null without one right answer", nullable=True
    ),
    Column("others", _TEXT, "JSON", "All other metrics of the task: METRIC,FILTER -> score and stderr, on lm-eval's scale"),
    Column("n", _INT, "items", "Items that were scored"),
    Column("truncated_share", _REAL, "fraction", "Items whose prompt lost tokens at its beginning for not fitting max_length"),
    # settings
    Column("fewshot", _INT, "examples", "Examples in the prompts"),
    Column("limit", _INT, "items", "Most items of a task that were asked for; null: all", nullable=True),
    Column("max_length", _INT, "tokens", "Most tokens that the model read at a time"),
    Column("version", _TEXT, "", "Version of the task's definition"),
    Column("settings", _TEXT, "JSON", "All that was asked for: equal settings are not scored twice"),
    # cost, of the whole request
    Column("wall_s", _REAL, "s", "Time of the request, data and scores included"),
    Column("tokens_asked", _INT, "tokens", "Tokens of all its prompts and answers"),
    Column("tokens_run", _INT, "tokens", "Tokens that went through the model: common beginnings once"),
    # origin
    Column("lm_eval", _TEXT, "", "Version of lm-eval"),
    Column("git_sha", _TEXT, "", "Commit of the code that scored; null outside a repository", nullable=True),
    Column("device", _TEXT, "", "Device that scored"),
    Column("precision", _TEXT, "", "Precision of the matrix multiplications"),
    Column("finished_at", _TEXT, "ISO 8601, UTC", "When it was scored"),
)

EVAL_ITEM_COLUMNS: tuple[Column, ...] = (
    Column("task", _TEXT, "", "Task"),
    Column("doc_id", _INT, "", "Number of the item in the task's data"),
    Column("doc_hash", _TEXT, "", "Hash of the item: equal in two trials when the question is"),
    Column("score", _REAL, "% or as the metric", "Score of the item in the task's metric", nullable=True),
    Column("bpb", _REAL, "bits/byte", "Bits for each byte of the right answer", nullable=True),
    Column("chance", _REAL, "as score", "Score of a guess", nullable=True),
    Column("truncated", pa.bool_(), "", "Whether the prompt lost tokens at its beginning"),
)

EXTENSION_COLUMNS: tuple[Column, ...] = (
    # identity
    Column("trial_id", _TEXT, "", "Hash of the extension's config: the name of its checkpoint"),
    Column("source_trial_id", _TEXT, "", "Trial whose final weights it starts from"),
    Column("sweep", _TEXT, "", "Sweep of that trial; null where the checkpoint lay outside of a results folder", nullable=True),
    Column("size", _TEXT, "", "Named model size"),
    Column("rho", _REAL, "fraction", "rho of the source"),
    Column("variant", _TEXT, "", "Variant of the source"),
    Column("seed", _INT, "", "Seed of the source, and of the order of the data"),
    Column("memory_design", _TEXT, "", "How memory enters the model, or none"),
    Column("config", _TEXT, "JSON", "The whole config of the extension"),
    Column("source_budget_flops", _REAL, "FLOPs", "Training compute that was asked for the source"),
    Column("source_tokens", _INT, "tokens", "Training tokens of the source"),
    Column("source_length", _INT, "tokens", "Predicted tokens in a sequence of the source: K below"),
    # training
    Column("length", _INT, "tokens", "Predicted tokens in a sequence of the extension: L below"),
    Column("yarn_scale", _REAL, "ratio", "YaRN's scale: L over the length before the first extension"),
    Column("steps", _INT, "steps", "Optimiser steps"),
    Column("batch_size", _INT, "sequences", "Sequences in an optimiser step"),
    Column("tokens", _INT, "tokens", "Training tokens of the extension"),
    Column("learning_rate", _REAL, "", "Peak learning rate of the dense weights"),
    Column("train_flops", _REAL, "FLOPs", "6 p_active tokens of the extension"),
    Column("train_documents", _INT, "documents", "Training documents"),
    Column("train_long_documents", _INT, "documents", "Training documents of at least L tokens"),
    Column("val_documents", _INT, "documents", "Validation documents"),
    Column("val_long_documents", _INT, "documents", "Validation documents of at least L tokens"),
    Column("train_loss", _REAL, "nats/token", "Mean training loss over the last 5 % of the steps"),
    # outcome
    Column("val_loss_short_before", _REAL, "nats/token", "Validation loss of the source in sequences of K: its val_loss"),
    Column("val_loss_short_after", _REAL, "nats/token", "The same of the extension"),
    Column("val_loss_before", _REAL, "nats/token", "Validation loss of the source, without YaRN, in sequences of L"),
    Column("val_loss_after", _REAL, "nats/token", "The same of the extension, with YaRN"),
    Column("long_documents", _INT, "documents", "Validation documents of at least L tokens that the columns below are measured on"),
    Column("long_tokens", _INT, "tokens", "Tokens of them that have more than K tokens before them"),
    Column("short_ppl_before", _REAL, "", "Perplexity of those tokens for the source, which sees the last K tokens at most"),
    Column("short_ppl_after", _REAL, "", "The same for the extension"),
    Column("ppl_before", _REAL, "", "Perplexity of those tokens for the source, without YaRN, which sees all of up to L tokens"),
    Column("ppl_after", _REAL, "", "The same for the extension, with YaRN"),
    Column("reference_trial_id", _TEXT, "", "Trial whose model finds the key tokens: the extension itself, or that of --reference"),
    Column("key_tokens", _INT, "tokens", "Tokens on which the reference gains more than 2 nats from the whole context, to a loss below 2"),
    Column("key_share", _REAL, "fraction", "key_tokens over long_tokens"),
    Column("long_ppl_before", _REAL, "", "LongPPL: perplexity of the key tokens, as ppl_before; null without key tokens", nullable=True),
    Column("long_ppl_after", _REAL, "", "The same, as ppl_after", nullable=True),
    Column(
        "gain_by_position",
        pa.list_(_REAL),
        "nats/token",
        "Mean gain of the extension from the whole context over the last K tokens, at the positions [K, 2K), [2K, 4K) and so on",
    ),
    # cost
    Column("wall_s", _REAL, "s", "Time spent in optimiser steps and validations, all attempts together"),
    Column("tokens_per_s", _REAL, "tokens/s", "Training speed"),
    Column("n_restarts", _INT, "", "Times the training was continued from a checkpoint"),
    # origin
    Column("git_sha", _TEXT, "", "Commit of the code; empty outside a repository"),
    Column("corpus_fingerprint", _TEXT, "", "Hash of the corpus: its documents, order and splits"),
    Column("tokenizer_fingerprint", _TEXT, "", "Hash of the tokenizer"),
    Column("versions", _TEXT, "JSON", "Versions of Python and of the libraries that matter"),
    Column("hostname", _TEXT, "", "Machine that trained"),
    Column("device", _TEXT, "", "Device that trained"),
    Column("precision", _TEXT, "", "Precision of the matrix multiplications: bf16 or fp32"),
    Column("started_at", _TEXT, "ISO 8601, UTC", "Start of the first attempt"),
    Column("finished_at", _TEXT, "ISO 8601, UTC", "End of the last attempt"),
)


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """Arrow schema of a table, with the schema version, units and meanings in its metadata."""
    fields = [pa.field(c.name, c.type, nullable=c.nullable, metadata={"unit": c.unit, "meaning": c.meaning}) for c in columns]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})


TRIAL_SCHEMA = schema_of(TRIAL_COLUMNS)
"""Arrow schema of trials/*.parquet: its metadata has the schema version, each field's has unit and meaning."""
CURVE_SCHEMA = schema_of(CURVE_COLUMNS)
"""The same of curves/*.parquet."""
DOCUMENT_SCHEMA = schema_of(DOCUMENT_COLUMNS)
"""The same of documents/*.parquet."""
EVAL_SCHEMA = schema_of(EVAL_COLUMNS)
"""The same of evals/*.parquet."""
EVAL_ITEM_SCHEMA = schema_of(EVAL_ITEM_COLUMNS)
"""The same of eval_items/*.parquet."""
EXTENSION_SCHEMA = schema_of(EXTENSION_COLUMNS)
"""The same of extensions/*.parquet."""
