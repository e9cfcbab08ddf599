"""An extension to longer sequences in the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engramctl.present import console
from engramctl.present.format import number

if TYPE_CHECKING:
    from rich.console import Console

_SPLITS = (("train", "training"), ("val", "validation"))


def print_extension(terminal: "Console", checkpoint: Path, row: Mapping[str, Any]) -> None:
    """Losses and perplexities before and after, from a row of the columns `results.schema.extensions.EXTENSION_COLUMNS`."""
    short, long = row["source_length"], row["length"]
    terminal.print(f"trial {row['source_trial_id']} extended from {short} to {long} tokens: {checkpoint}", soft_wrap=True)
    counts = [f"{row[f'{split}_long_documents']:,} of {row[f'{split}_documents']:,} {name} documents" for split, name in _SPLITS]
    terminal.print(f"{' and '.join(counts)} have at least {long} tokens")
    share = f"{100 * row['key_share']:.2g} %"
    lines = (
        (f"validation loss, sequences of {short}", "val_loss_short", ".4f"),
        (f"validation loss, sequences of {long}", "val_loss", ".4f"),
        (f"perplexity, last {short} tokens seen", "short_ppl", ".2f"),
        (f"perplexity, up to {long} tokens seen", "ppl", ".2f"),
        (f"LongPPL, {share} of the tokens", "long_ppl", ".2f"),
    )
    cells = [(label, *(number(row[f"{name}_{when}"], form) for when in ("before", "after"))) for label, name, form in lines]
    terminal.print(console.table(("", "before", "after"), cells))
    terminal.print(
        f"perplexities: {row['long_tokens']:,} tokens of {row['long_documents']} documents, those with more than {short} before them"
    )
