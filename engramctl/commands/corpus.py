"""`engramctl corpus`"""

from typing import Annotated, Any

import typer

from engramctl.commands.next_step import typed_words
from engramctl.commands.options import corpus as corpus_options
from engramctl.commands.options.results import JsonOption
from engramctl.present import console
from engramctl.present.format import counted
from engramctl.present.json import print_json
from engramctl.present.progress import StageProgress
from engramctl.results.defaults import DEFAULT_RESULTS, as_typed


def corpus(
    context: typer.Context,
    corpus: corpus_options.CorpusOption = None,
    corpus_bytes: corpus_options.CorpusBytesOption = None,
    text_column: corpus_options.TextColumnOption = None,
    tokenizer: corpus_options.TokenizerOption = None,
    vocab_size: corpus_options.VocabSizeOption = None,
    cache: corpus_options.CacheOption = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Read the text again although it is in the cache.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prepare a corpus and describe it: documents, tokens, compression, what training and validation share, N-grams seen once.

    Example: engramctl corpus --corpus 'files:texts/**/*.jsonl.gz' --text-column body --corpus-bytes 200MB
    """
    from engram.cache import default_cache
    from engram.config.errors import validated
    from engram.corpus.prepare import prepare_corpus
    from engram.corpus.sources import CorpusSpec
    from engram.corpus.statistics import describe, overlap, text_loss
    from engramctl.commands.options.sweep import corpus_overrides

    changes = corpus_overrides(corpus, corpus_bytes, text_column, tokenizer, vocab_size)
    spec = validated(CorpusSpec, {"source": "python", **changes}, "corpus")
    with StageProgress() as progress:
        prepared = prepare_corpus(spec, cache or default_cache(), progress, refresh)
        progress("counting N-grams", 0, None)
        facts = describe(prepared)
    if as_json:
        print_json(facts)
        return
    rows = [
        ("documents", f"{facts['train_documents']:,}", f"{facts['val_documents']:,}"),
        ("bytes", f"{facts['train_bytes']:,}", f"{facts['val_bytes']:,}"),
        ("tokens", f"{facts['train_tokens']:,}", f"{facts['val_tokens']:,}"),
    ]
    out = console.out()
    out.print(console.table(("", "train", "validation"), rows))
    out.print()
    tokens = f"{facts['vocab_size']:,} tokens, {facts['compressed_vocab_size']:,} canonical ids"
    out.print(f"vocabulary: {tokens} ({facts['compression_percent']:.1f} % fewer), {facts['bytes_per_token']:.2f} bytes a token")
    read = "" if facts["read_documents"] is None else f" of {facts['read_documents']:,} documents read"
    out.print(f"left out{read}: {counted(facts['duplicate_documents'], 'duplicate')}, {facts['blank_documents']:,} without text")
    for reason, count in (facts["skipped_files"] or {}).items():
        out.print(f"files skipped: {count:,} ({reason})")
    if (loss := text_loss(prepared)) is not None:
        out.print(loss, markup=False)
    elif facts["unknown_tokens"] is not None:
        out.print("the tokenizer loses nothing: no token is unknown, every document decodes back to its text")
    out.print()
    for line in _split_lines(facts):
        out.print(line)
    if (shared := overlap(prepared)) is not None:
        out.print(shared, markup=False)
    out.print()
    ngrams = [
        (f"{g['n']}-grams", f"{g['distinct']:,}", f"{g['seen_once_percent']:.1f} %", f"{g['occurrences_seen_once_percent']:.1f} %")
        for g in facts["ngrams"]
    ]
    out.print(console.table((f"of {facts['ngram_tokens']:,} tokens", "distinct", "seen once", "share of text"), ngrams))
    console.note(f"kept in {facts['folder']} (fingerprint {facts['corpus_fingerprint'][:12]})")
    options = typed_words(context)[1:]
    name = ["--name", f"text-{facts['corpus_fingerprint'][:6]}"] if options else []  # the sweep may be there with another text
    console.note(f"next: {as_typed(['sweep', '--budget', '20m', *options, *name], DEFAULT_RESULTS)}")


def _split_lines(facts: dict[str, Any]) -> list[str]:
    """How the text was divided; empty for a corpus of an earlier version."""
    if facts["val_components"] is None:
        return []
    packages = "" if facts["train_packages"] is None else f", packages {facts['train_packages']:,} and {facts['val_packages']:,}"
    near = counted(facts["near_duplicate_documents"], "near-duplicate")
    return [
        f"{near} in {counted(facts['near_duplicate_clusters'], 'cluster')}, each on one side whole;"
        f" components in training and validation: {facts['train_components']:,} and {facts['val_components']:,}{packages}",
        f"left out of validation for what training has of them: {counted(facts['overlap_documents'], 'document')}"
        f" ({facts['overlap_bytes']:,} bytes)",
        f"validation tokens in a 32-gram of training: {100 * facts['val_overlap_32']:.2f} %, in a 16-gram:"
        f" {100 * facts['val_overlap_16']:.2f} %; lines of a document in one of training: {100 * facts['val_line_share']:.0f} % at most",
    ]
