from itertools import chain
from pathlib import Path

from engramctl.results.schema.analysis import TABLES
from engramctl.results.schema.columns import SCHEMA_VERSION
from engramctl.results.schema.extensions import EXTENSION_COLUMNS
from engramctl.results.schema.scores import EVAL_COLUMNS, EVAL_ITEM_COLUMNS
from engramctl.results.schema.trials import CURVE_COLUMNS, DOCUMENT_COLUMNS, TRIAL_COLUMNS

DOCS = Path(__file__).parents[3] / "docs" / "results.md"


def test_docs_have_every_column_word_for_word():
    page = DOCS.read_text()
    for column in (
        *TRIAL_COLUMNS,
        *CURVE_COLUMNS,
        *DOCUMENT_COLUMNS,
        *EVAL_COLUMNS,
        *EVAL_ITEM_COLUMNS,
        *EXTENSION_COLUMNS,
        *chain(*TABLES.values()),
    ):
        kind = f"{column.type}, or null" if column.nullable else str(column.type)
        assert f"| `{column.name}` | {kind} | {column.unit} | {column.meaning} |\n" in page
    assert f"version {SCHEMA_VERSION}" in page
