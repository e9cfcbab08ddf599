"""Columns of extensions: trials trained further on longer sequences."""

import pyarrow as pa

from engramctl.results.schema.columns import INT, REAL, TEXT, Column, schema_of

EXTENSION_COLUMNS: tuple[Column, ...] = (
    # identity
    Column("trial_id", TEXT, "", "Hash of the extension's config: the name of its checkpoint"),
    Column("source_trial_id", TEXT, "", "Trial whose final weights it starts from"),
    Column("sweep", TEXT, "", "Sweep of that trial; null where the checkpoint lay outside of a results folder", nullable=True),
    Column("size", TEXT, "", "Named model size"),
    Column("rho", REAL, "fraction", "rho of the source"),
    Column("variant", TEXT, "", "Variant of the source"),
    Column("seed", INT, "", "Seed of the source, and of the order of the data"),
    Column("memory_design", TEXT, "", "How memory enters the model, or none"),
    Column("config", TEXT, "JSON", "The whole config of the extension"),
    Column("source_budget_flops", REAL, "FLOPs", "Training compute that was asked for the source"),
    Column("source_tokens", INT, "tokens", "Training tokens of the source"),
    Column("source_length", INT, "tokens", "Predicted tokens in a sequence of the source: K below"),
    # training
    Column("length", INT, "tokens", "Predicted tokens in a sequence of the extension: L below"),
    Column("yarn_scale", REAL, "ratio", "YaRN's scale: L over the length before the first extension"),
    Column("steps", INT, "steps", "Optimiser steps"),
    Column("batch_size", INT, "sequences", "Sequences in an optimiser step"),
    Column("tokens", INT, "tokens", "Training tokens of the extension"),
    Column("learning_rate", REAL, "", "Peak learning rate of the dense weights"),
    Column("train_flops", REAL, "FLOPs", "6 p_active tokens of the extension"),
    Column("train_documents", INT, "documents", "Training documents"),
    Column("train_long_documents", INT, "documents", "Training documents of at least L tokens"),
    Column("val_documents", INT, "documents", "Validation documents"),
    Column("val_long_documents", INT, "documents", "Validation documents of at least L tokens"),
    Column("train_loss", REAL, "nats/token", "Mean training loss over the last 5 % of the steps"),
    # outcome
    Column("val_loss_short_before", REAL, "nats/token", "Validation loss of the source in sequences of K: its val_loss"),
    Column("val_loss_short_after", REAL, "nats/token", "The same of the extension"),
    Column("val_loss_before", REAL, "nats/token", "Validation loss of the source, without YaRN, in sequences of L"),
    Column("val_loss_after", REAL, "nats/token", "The same of the extension, with YaRN"),
    Column("long_documents", INT, "documents", "Validation documents of at least L tokens that the columns below are measured on"),
    Column("long_tokens", INT, "tokens", "Tokens of them that have more than K tokens before them"),
    Column("short_ppl_before", REAL, "", "Perplexity of those tokens for the source, which sees the last K tokens at most"),
    Column("short_ppl_after", REAL, "", "The same for the extension"),
    Column("ppl_before", REAL, "", "Perplexity of those tokens for the source, without YaRN, which sees all of up to L tokens"),
    Column("ppl_after", REAL, "", "The same for the extension, with YaRN"),
    Column("reference_trial_id", TEXT, "", "Trial whose model finds the key tokens: the extension itself, or that of --reference"),
    Column("key_tokens", INT, "tokens", "Tokens on which the reference gains more than 2 nats from the whole context, to a loss below 2"),
    Column("key_share", REAL, "fraction", "key_tokens over long_tokens"),
    Column("long_ppl_before", REAL, "", "LongPPL: perplexity of the key tokens, as ppl_before; null without key tokens", nullable=True),
    Column("long_ppl_after", REAL, "", "The same, as ppl_after", nullable=True),
    Column(
        "gain_by_position",
        pa.list_(REAL),
        "nats/token",
        "Mean gain of the extension from the whole context over the last K tokens, at the positions [K, 2K), [2K, 4K) and so on",
    ),
    # cost
    Column("wall_s", REAL, "s", "Time spent in optimiser steps and validations, all attempts together"),
    Column("tokens_per_s", REAL, "tokens/s", "Training speed"),
    Column("n_restarts", INT, "", "Times the training was continued from a checkpoint"),
    # origin
    Column("git_sha", TEXT, "", "Commit of the code; empty outside a repository"),
    Column("corpus_fingerprint", TEXT, "", "Hash of the corpus: its documents, order and splits"),
    Column("tokenizer_fingerprint", TEXT, "", "Hash of the tokenizer"),
    Column("versions", TEXT, "JSON", "Versions of Python and of the libraries that matter"),
    Column("hostname", TEXT, "", "Machine that trained"),
    Column("device", TEXT, "", "Device that trained"),
    Column("precision", TEXT, "", "Precision of the matrix multiplications: bf16 or fp32"),
    Column("started_at", TEXT, "ISO 8601, UTC", "Start of the first attempt"),
    Column("finished_at", TEXT, "ISO 8601, UTC", "End of the last attempt"),
)

EXTENSION_SCHEMA = schema_of(EXTENSION_COLUMNS)
"""Arrow schema of extensions/*.parquet."""
