"""Columns of trials: their rows, training curves and losses on validation documents."""

import pyarrow as pa

from engramctl.results.schema.columns import INT, REAL, TEXT, Column, schema_of
from engramctl.results.trial_table import DIVERGED, FAILED, FINISHED

STATUSES = (FINISHED, DIVERGED, FAILED)
"""Outcomes of a trial. `failed` trials are tried again; the others are done."""

TRIAL_COLUMNS: tuple[Column, ...] = (
    # identity
    Column("trial_id", TEXT, "", "Hash of the trial's config, 12 hexadecimal digits: the name of its files"),
    Column("sweep", TEXT, "", "Name of the sweep: the folder of this table"),
    Column("size", TEXT, "", "Named model size"),
    Column(
        "rho",
        REAL,
        "fraction",
        "Share of the inactive parameters given to routed experts, as asked for (over slots: as it results); the rest is memory",
    ),
    Column("variant", TEXT, "", "Labels of the sweep's further axes, joined by commas; empty without such axes"),
    Column("axes", TEXT, "JSON", "Label of every further axis by its name"),
    Column("seed", INT, "", "Seed of initialisation and data order"),
    Column("budget_flops", REAL, "FLOPs", "Training compute that was asked for, in the count of train_flops"),
    # config
    Column("config", TEXT, "JSON", "The whole config of the trial"),
    Column("corpus", TEXT, "", "Corpus as it was named on the command line"),
    Column("n_layers", INT, "layers", "Transformer layers"),
    Column("width", INT, "numbers", "Size of the residual stream"),
    Column("n_heads", INT, "heads", "Attention heads"),
    Column("expert_width", INT, "numbers", "Inner width of one routed expert"),
    Column("top_k", INT, "experts", "Routed experts that a token visits in a layer"),
    Column("n_routed_experts", INT, "experts", "Routed experts in a layer"),
    Column("shared_width", INT, "numbers", "Inner width of the shared expert"),
    Column("branches", INT, "branches", "Residual branches; 1 is the plain residual stream"),
    Column("attention", TEXT, "", "Kind of attention: mha (multi-head) or mla (multi-head latent)"),
    Column("memory_design", TEXT, "", "How memory enters the model: engram, engram-v4.1, over-encoding, value or none"),
    Column("n_slots", INT, "rows", "Rows of all memory tables together; 0 without memory"),
    Column("memory_dim", INT, "numbers", "Length of the memory vector of a token; 0 without memory"),
    Column("max_ngram", INT, "tokens", "Largest N-gram that is looked up; 0 without memory"),
    Column("hash_heads", INT, "heads", "Hash heads for each N-gram order; 0 without memory"),
    Column("memory_layers", pa.list_(INT), "layers", "Layers that have a memory, counted from 0 (the embedding: 0); empty without memory"),
    Column("optimizer", TEXT, "", "Optimiser of the matrices: adamw or muon"),
    Column("schedule", TEXT, "", "Learning rate over the training: wsd, cosine or step"),
    Column("learning_rate", REAL, "", "Peak learning rate of the dense weights"),
    Column("batch_size", INT, "sequences", "Sequences in an optimiser step"),
    Column("seq_len", INT, "tokens", "Predicted tokens in a sequence"),
    Column("vocab_size", INT, "tokens", "Tokens in the vocabulary"),
    # accounting
    Column("p_total", INT, "parameters", "All parameters but embedding and head"),
    Column("p_active", INT, "parameters", "Parameters of p_total that one token uses"),
    Column("p_sparse", INT, "parameters", "Inactive parameters, p_total - p_active: what rho divides"),
    Column("p_engram", INT, "parameters", "Parameters of the memory tables"),
    Column("p_embedding", INT, "parameters", "Parameters of the token embedding and of the output head"),
    Column("rho_realised", REAL, "fraction", "rho after rounding to whole experts and slots"),
    Column("steps", INT, "steps", "Optimiser steps of the full training"),
    Column("tokens", INT, "tokens", "Training tokens of the full training"),
    Column("train_flops", REAL, "FLOPs", "6 p_active tokens"),
    Column("model_flops", REAL, "FLOPs", "All matrix multiplications, head and attention included, forward and backward"),
    # outcome
    Column("val_loss", REAL, "nats/token", "Mean validation loss at the end", nullable=True),
    Column("val_loss_se", REAL, "nats/token", "Standard error of val_loss, clustered by document", nullable=True),
    Column("val_bpb", REAL, "bits/byte", "Validation loss for each byte of text: does not depend on the tokenizer", nullable=True),
    Column("val_tokens", INT, "tokens", "Validation tokens that were predicted", nullable=True),
    Column("val_documents", INT, "documents", "Validation documents", nullable=True),
    Column("train_loss", REAL, "nats/token", "Mean training loss over the last 5 % of the steps", nullable=True),
    Column("copy_loss", REAL, "nats/token", "Loss on the second half of a repeated random sequence", nullable=True),
    Column(
        "loss_by_position",
        pa.list_(REAL),
        "nats/token",
        "Mean validation loss in buckets of the position in the sequence: [0,1), [1,2), [2,4), [4,8) and so on",
        nullable=True,
    ),
    Column(
        "load_max_over_mean",
        REAL,
        "ratio",
        "Largest expert load over the mean load, in the worst layer, mean over the last 5 % of the steps",
        nullable=True,
    ),
    Column("load_cv", REAL, "ratio", "Coefficient of variation of the expert load, mean over the layers", nullable=True),
    Column(
        "starved_experts",
        INT,
        "experts",
        "Experts of all layers together that no token was sent to in the last 5 % of the steps: routing that has collapsed",
        nullable=True,
    ),
    # cost
    Column("wall_s", REAL, "s", "Time spent in optimiser steps and validations, all attempts together", nullable=True),
    Column("train_s", REAL, "s", "Time spent in optimiser steps alone, all attempts together", nullable=True),
    Column("tokens_per_s", REAL, "tokens/s", "Training speed", nullable=True),
    Column("peak_rss_bytes", INT, "bytes", "Largest resident memory of the process", nullable=True),
    Column("n_restarts", INT, "", "Times the training was continued from a checkpoint"),
    # origin
    Column("git_sha", TEXT, "", "Commit of the code; null outside a repository", nullable=True),
    Column("corpus_fingerprint", TEXT, "", "Hash of the corpus: its documents, order and splits"),
    Column("tokenizer_fingerprint", TEXT, "", "Hash of the tokenizer"),
    Column("versions", TEXT, "JSON", "Versions of Python and of the libraries that matter"),
    Column("hostname", TEXT, "", "Machine that trained"),
    Column("devices", INT, "processes", "Processes that trained the trial together, each on a device of its own", nullable=True),
    Column("tables", TEXT, "", "Where the memory tables lay: process, host, disk or sharded; null without memory", nullable=True),
    Column("tables_wait_s", REAL, "s", "Time for which the last attempt waited for rows of tables on the host or on disk", nullable=True),
    Column("tables_hit_rate", REAL, "fraction", "Rows on disk that the last attempt found in RAM, of those it read", nullable=True),
    Column("device", TEXT, "", "Device that trained", nullable=True),
    Column("precision", TEXT, "", "Precision of the matrix multiplications: bf16 or fp32", nullable=True),
    Column("started_at", TEXT, "ISO 8601, UTC", "Start of the first attempt"),
    Column("finished_at", TEXT, "ISO 8601, UTC", "End of the last attempt"),
    Column("status", TEXT, "", "finished, diverged (the loss left the finite numbers) or failed (will be tried again)"),
    Column("error", TEXT, "", "Why the trial diverged or failed; null when it finished", nullable=True),
)

CURVE_COLUMNS: tuple[Column, ...] = (
    Column("step", INT, "steps", "Optimiser steps done"),
    Column("tokens", INT, "tokens", "Training tokens seen"),
    Column("train_loss", REAL, "nats/token", "Mean training loss since the row before"),
    Column("learning_rate", REAL, "", "Learning rate of the dense weights at this step"),
    Column("grad_norm", REAL, "", "Mean norm of the gradient before clipping, since the row before"),
    Column("load_max_over_mean", REAL, "ratio", "Largest expert load over the mean load, in the worst layer, since the row before"),
    Column("load_cv", REAL, "ratio", "Coefficient of variation of the expert load, mean over the layers, since the row before"),
    Column("val_loss", REAL, "nats/token", "Mean validation loss; null at steps without a validation", nullable=True),
    Column("copy_loss", REAL, "nats/token", "Loss on the second half of a repeated random sequence; null likewise", nullable=True),
    Column(
        "expert_loads",
        pa.list_(pa.list_(INT)),
        "tokens",
        "Tokens sent to every expert, by layer and expert, since the row before that has a validation; null likewise",
        nullable=True,
    ),
)

DOCUMENT_COLUMNS: tuple[Column, ...] = (
    Column("document", TEXT, "", "Id of a validation document, hexadecimal; the same in all trials of a corpus"),
    Column("n_tokens", INT, "tokens", "Predicted tokens of the document"),
    Column("n_bytes", INT, "bytes", "UTF-8 bytes of those tokens"),
    Column("loss_sum", REAL, "nats", "Sum of the losses of those tokens"),
    Column(
        "overlap",
        REAL,
        "fraction",
        "Share of the document's first 1,024 tokens that lie in a 32-gram of training; null where an earlier version prepared the corpus",
        nullable=True,
    ),
)

TRIAL_SCHEMA = schema_of(TRIAL_COLUMNS)
"""Arrow schema of trials/*.parquet; its metadata holds the schema version, each field's the unit and meaning."""
CURVE_SCHEMA = schema_of(CURVE_COLUMNS)
"""The same of curves/*.parquet."""
DOCUMENT_SCHEMA = schema_of(DOCUMENT_COLUMNS)
"""The same of documents/*.parquet."""
