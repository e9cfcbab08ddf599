"""The `hf:NAME` corpus: a data set from the Hugging Face hub or from a local folder, streamed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.corpus.file_text import missing_column, row_text
from engram.errors import UserError
from engram.tokenizer.hub import require_hub, short_cause

FORM = "hf:NAME[/CONFIG][:SPLIT][#COLUMN], where NAME is owner/name, name, or a folder that starts with / ./ ../ or ~/"


@dataclass(frozen=True)
class HubSource:
    """What `hf:...` names."""

    name: str
    """`owner/name` or `name` on the hub, or the absolute path of a local folder."""
    config: str | None
    split: str
    column: str | None
    """Text column, if the source names one."""

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a data set on the hub."""
        return Path(self.name) if os.path.isabs(self.name) else None


def parse_hub_source(source: str) -> HubSource:
    """Parse `hf:NAME[/CONFIG][:SPLIT][#COLUMN]`; UserError when it has another form.

    The column follows the first `#`, the split the first `:` before it. The third part of a hub name is the configuration
    (`owner/name/config`); a local folder has none.
    """
    address, hash_mark, column = source.removeprefix("hf:").partition("#")
    address, colon, split = address.partition(":")
    if not address or (hash_mark and not column) or (colon and not split):
        raise UserError(f"corpus {source} is not of the form {FORM}")
    split, chosen = split or "train", column or None
    if address.startswith(("/", "./", "../", "~/")) or address in (".", ".."):
        return HubSource(os.path.abspath(os.path.expanduser(address)), None, split, chosen)
    parts = address.split("/")
    if len(parts) > 3 or not all(parts):
        raise UserError(f"corpus {source} is not of the form {FORM}")
    return HubSource("/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split, chosen)


def hub_documents(source: str, text_column: str | None) -> Iterator[str]:
    """Texts of the data set's rows in its own order; null gives the empty string.

    Raises UserError, in one line, when the data can't be read.
    """
    parsed = parse_hub_source(source)
    column = parsed.column or text_column or "text"
    if parsed.folder is None:
        require_hub(f"corpus {source}")
    elif not parsed.folder.is_dir():
        raise UserError(f"corpus {source}: {parsed.folder} is not a folder")
    try:
        rows = iter(_open(parsed, column, source))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"corpus {source} can't be opened: {short_cause(error)}") from error
    number = 0
    while True:
        number += 1
        # Only the reading is guarded: an error in the code that consumes the documents is not the data set's.
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise UserError(f"corpus {source} can't be read at row {number}: {short_cause(error)}") from error
        place = f"corpus {source}: row {number}"
        if column not in row:
            raise missing_column(place, column, list(row))
        yield row_text(row[column], place, column)


def _open(parsed: HubSource, column: str, source: str) -> Any:
    import datasets

    datasets.disable_progress_bars()  # they would draw over our progress bar
    rows = datasets.load_dataset(parsed.name, parsed.config, split=parsed.split, streaming=True)
    if rows.column_names is None:  # not known before the first row
        return rows
    if column not in rows.column_names:
        raise missing_column(f"corpus {source}", column, rows.column_names)
    return rows.select_columns([column])
