import pandas as pd
import pyarrow.parquet as pq
import pytest

from engram.errors import UserError
from engramctl.results.row_checks import first_nonsense
from engramctl.results.schema.trials import TRIAL_SCHEMA
from engramctl.results.store import Store


def frame(rows):
    return pd.DataFrame(rows, columns=TRIAL_SCHEMA.names)


def test_rows_as_trials_have_them(make_row):
    assert first_nonsense(frame([make_row(), make_row(rho=1.0), make_row(status="failed"), make_row(status="diverged")])) is None
    assert first_nonsense(frame([])) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rho", 1.5), ("rho", float("nan")), ("seed", -1), ("budget_flops", 0.0), ("budget_flops", float("inf")), ("status", "done"),
        ("axes", "[1"), ("axes", "[]"), ("axes", '{"a": 1}'), ("axes", "[" * 100_000), ("config", ""), ("versions", "null"), ("p_total", 0),
        ("n_slots", -1), ("val_loss", None), ("val_loss", float("inf")),
    ],
)  # fmt: skip
def test_what_no_trial_has(make_row, column, value):
    found = first_nonsense(frame([make_row(status="failed"), make_row() | {column: value}]))
    assert found is not None
    assert found[0] == 1
    assert found[1].startswith(f"{column} is ")


def test_the_file_is_named(tmp_path, fill, make_row):
    row = make_row()
    fill(tmp_path, [row])
    path = tmp_path / "allocation" / "trials" / f"{row['trial_id']}.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("rho")
    pq.write_table(table.set_column(place, table.schema.field("rho"), [[7.0]]), path)
    with pytest.raises(UserError, match=f"{row['trial_id']}.parquet: rho is '7.0'; it must be a number from 0 to 1"):
        Store(tmp_path, "allocation").read_trials(["trial_id", "rho"])
