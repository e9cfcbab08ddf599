import json
import os
import random
import re
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engram.errors import UserError
from engramctl.results.schema.columns import SCHEMA_VERSION
from engramctl.results.schema.trials import TRIAL_COLUMNS
from engramctl.results.score_store import ScoreStore
from engramctl.results.store import Store, list_sweeps


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, "allocation")


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_trial_comes_back_as_it_was_written(store, make_row, curve, documents):
    row = make_row(rho=0.6, seed=3)
    store.write_trial(row, curve, documents)
    trials = store.read_trials()
    assert list(trials.columns) == [c.name for c in TRIAL_COLUMNS]
    back = trials.iloc[0].to_dict()
    assert list(back.pop("memory_layers")) == row.pop("memory_layers")
    assert list(back.pop("loss_by_position")) == row.pop("loss_by_position")
    assert back.pop("error") != back.get("error")  # null
    row.pop("error")
    assert back == row
    assert store.read_curve(row["trial_id"])["train_loss"].tolist() == [8.0, 7.5]
    assert store.read_curve(row["trial_id"])["val_loss"].isna().tolist() == [True, False]
    assert store.read_documents(row["trial_id"])["loss_sum"].sum() == 398.5


def test_no_trials_is_an_empty_table_with_all_columns(store):
    trials = store.read_trials()
    assert trials.empty
    assert list(trials.columns) == [c.name for c in TRIAL_COLUMNS]
    assert store.finished_ids() == set()
    assert store.read_manifest() is None


def test_failed_trials_are_not_finished_but_diverged_ones_are(store, make_row):
    rows = {status: make_row(rho=rho, status=status) for rho, status in ((0.2, "finished"), (0.4, "diverged"), (0.6, "failed"))}
    for row in rows.values():
        store.write_trial(row, None, None)
    assert store.finished_ids() == {rows["finished"]["trial_id"], rows["diverged"]["trial_id"]}


def test_a_second_attempt_replaces_all_of_the_first(store, make_row, curve, documents):
    failed = make_row(status="failed")
    store.write_trial(failed, curve, documents)
    store.write_trial(make_row(trial_id=failed["trial_id"]), None, None)
    assert store.read_trials()["status"].tolist() == ["finished"]
    with pytest.raises(UserError, match="has no curve"):
        store.read_curve(failed["trial_id"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown columns colour"),
        ({"rho": ...}, "missing columns rho"),
        ({"steps": None}, "column steps must have a value"),
        ({"val_loss": None}, "finished but has no val_loss"),
        ({"val_loss": float("nan")}, "finished but has no val_loss"),
        ({"status": "done"}, "status is 'done'"),
        ({"sweep": "other"}, "belongs to sweep 'other'"),
    ],
)
def test_a_row_that_does_not_fit_the_schema_is_refused_and_nothing_is_written(store, make_row, change, message):
    row = {name: value for name, value in (make_row() | change).items() if value is not ...}
    with pytest.raises(ValueError, match=message):
        store.write_trial(row, None, None)
    assert not list(store.folder.glob("trials/*"))


def test_numpy_arrays_are_columns_too(store, make_row, curve, documents):
    arrays = {
        name: np.array([float("nan") if v is None else v for v in values]) for name, values in curve.items() if name != "expert_loads"
    }
    arrays |= {"expert_loads": curve["expert_loads"]}
    arrays |= {name: arrays[name].astype(np.int64) for name in ("step", "tokens")}
    store.write_trial(make_row(), arrays, {name: np.array(values) for name, values in documents.items()})
    trial_id = make_row()["trial_id"]
    assert store.read_curve(trial_id)["val_loss"].isna().tolist() == [True, False]
    assert store.read_documents(trial_id)["document"].tolist() == ["aa", "bb"]


def test_a_curve_that_does_not_fit_leaves_no_row(store, make_row, curve):
    del curve["step"]
    with pytest.raises(ValueError, match="missing columns step"):
        store.write_trial(make_row(), curve, None)
    assert store.read_trials().empty


def test_documents_of_before_the_overlap_was_known_have_null_there(store, make_row, documents):
    row = make_row()
    store.write_trial(row, None, documents)
    path = store.documents / f"{row['trial_id']}.parquet"
    new = pq.read_table(path)
    pq.write_table(new.drop_columns("overlap"), path)
    old = store.read_documents(row["trial_id"])
    assert old.columns.tolist() == list(documents)
    assert old["overlap"].isna().all()
    (some,) = store.read_documents_tables([row["trial_id"]], ["overlap", "document"])
    assert some.to_pydict() == {"overlap": [None, None], "document": ["aa", "bb"]}
    pq.write_table(new.drop_columns(["overlap", "n_bytes"]), path)
    with pytest.raises(UserError, match="does not have the columns of schema version"):
        store.read_documents(row["trial_id"])


def test_files_carry_version_units_and_meaning(store, make_row):
    store.write_trial(make_row(), None, None)
    schema = pq.read_schema(next(store.trials.glob("*.parquet")))
    assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert schema.field("val_loss").metadata[b"unit"] == b"nats/token"
    assert all(field.metadata[b"meaning"] for field in schema)


def test_another_schema_version_names_file_and_both_versions(store, make_row):
    store.write_trial(make_row(), None, None)
    path = next(store.trials.glob("*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"schema_version": "7"}), path)
    with pytest.raises(UserError) as error:
        store.read_trials()
    assert path.name in one_line(error)
    assert "version 7" in str(error.value)
    assert f"version {SCHEMA_VERSION}" in str(error.value)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UserError, match="no schema version"):
        store.read_trials()


@pytest.mark.parametrize("damage", ["empty", "short", "text"])
def test_a_damaged_file_is_named(store, make_row, damage):
    store.write_trial(make_row(), None, None)
    path = next(store.trials.glob("*.parquet"))
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "short": content[: len(content) // 2], "text": b"hello"}[damage])
    with pytest.raises(UserError) as error:
        store.read_trials()
    assert str(path) in one_line(error)


def test_a_flipped_bit_in_the_name_of_a_column_is_damage(store, make_row):
    """Arrow's own copy of the schema in the file stays whole, so the file looks right until the column is asked for."""
    store.write_trial(make_row(), None, None)
    path = next(store.trials.glob("*.parquet"))
    content = bytearray(path.read_bytes())
    places = [found.start() for found in re.finditer(b"p_engram", content)]
    refused = []
    for place in places:
        path.write_bytes(content[:place] + b"q" + content[place + 1 :])
        try:
            store.read_trials()
        except UserError as mistake:
            refused.append(str(mistake))
    assert refused
    assert all(str(path) in message for message in refused)


def test_temporary_files_are_ignored(store, make_row):
    store.write_trial(make_row(), None, None)
    (store.trials / ".abc.parquet.0123.tmp").write_bytes(b"half")
    assert len(store.read_trials()) == 1


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written: Not a directory") as error:
        Store(tmp_path / "file", "allocation").check_writable()
    one_line(error)


def test_open_existing_lists_what_there_is(store, tmp_path):
    with pytest.raises(UserError, match="there are: none"):
        Store.open_existing(tmp_path, "allocation")
    store.check_writable()
    (tmp_path / "not-a-sweep").mkdir()
    assert list_sweeps(tmp_path) == ["allocation"]
    assert Store.open_existing(tmp_path, "allocation").folder == store.folder
    with pytest.raises(UserError, match=r"'nope' has no results.*there are: allocation"):
        Store.open_existing(tmp_path, "nope")
    with pytest.raises(UserError, match="no such folder"):
        Store.open_existing(tmp_path / "nowhere", "allocation")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_a_sweep_name_is_a_folder_name(tmp_path, name):
    with pytest.raises(UserError, match="without slashes"):
        Store(tmp_path, name)


def test_lock_names_the_process_that_holds_it(store, tmp_path):
    program = (
        "import sys, pathlib; from engramctl.results.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1]), 'allocation').lock(): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"allocation is being run by process {holder.pid} on ") as error, store.lock():
            pass
        one_line(error)
    finally:
        holder.kill()
        holder.communicate()
    with store.lock():  # A killed holder leaves nothing to clean up.
        assert store.folder.joinpath(".lock-owner.json").is_file()
    assert not store.folder.joinpath(".lock-owner.json").exists()


def test_lock_removes_old_debris_only(store, monkeypatch):
    store.check_writable()
    old, young = store.trials / ".a.parquet.1.tmp", store.trials / ".b.parquet.2.tmp"
    old.touch()
    young.touch()
    now = time.time()
    monkeypatch.setattr("engramctl.results.store._STALE_TEMP_S", 100.0)
    os.utime(old, (now - 200, now - 200))
    with store.lock():
        assert not old.exists()
        assert young.exists()


WRITER = """
import json, pathlib, sys
from engramctl.results.manifest import Manifest
from engramctl.results.store import Store
row, start = json.loads(pathlib.Path(sys.argv[1]).read_text()), int(sys.argv[3])
n = 20_000
curve = {name: [1] * n for name in ("step", "tokens")} | {name: [i * 0.7 for i in range(n)] for name in (
    "train_loss", "learning_rate", "grad_norm", "load_max_over_mean", "load_cv", "val_loss", "copy_loss")} | {"expert_loads": [None] * n}
documents = {"document": ["ab"] * n, "n_tokens": [1] * n, "n_bytes": [1] * n, "loss_sum": [1.0] * n, "overlap": [None] * n}
store = Store(pathlib.Path(sys.argv[2]), "allocation")
print("ready", flush=True)
for i in range(start, start + 1_000_000):
    store.write_trial(row | {"trial_id": f"{i:012x}"}, curve, documents)
"""


def test_kill_9_leaves_only_whole_files(store, tmp_path, make_row):
    (tmp_path / "row.json").write_text(json.dumps(make_row()))
    for attempt in range(3):
        arguments = [str(tmp_path / "row.json"), str(tmp_path), str(attempt * 1_000_000)]
        writer = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.5 + random.random() * 0.3)
        writer.kill()
        writer.communicate()
    files = list(store.folder.glob("*/*.parquet"))
    for path in files:
        pq.read_table(path)
    trials = store.read_trials()
    assert len(trials) >= 3
    for trial_id in trials["trial_id"]:
        assert len(store.read_curve(trial_id)) == len(store.read_documents(trial_id)) == 20_000


def test_shadows_of_other_systems_are_ignored(fill, make_row, tmp_path):
    store = fill(tmp_path, [make_row(0.5)])
    for folder in (store.trials, store.extensions, store.folder / "evals"):
        folder.mkdir(exist_ok=True)
        (folder / f"._{make_row(0.5)['trial_id']}.parquet").write_bytes(b"\0\5\x16\7")
    (store.trials / ".DS_Store").touch()
    assert len(store.read_trials()) == 1
    assert store.read_extensions().empty
    assert ScoreStore(store.folder).read().empty
    assert store.known_trials() == {make_row(0.5)["trial_id"]}


def test_copies_are_named(fill, make_row, tmp_path):
    store = fill(tmp_path, [make_row(0.5)])
    (row,) = store.trials.glob("*.parquet")
    for name in (f"{row.stem} (1).parquet", f"{row.stem} copy.parquet", "0123456789ab.parquet"):
        copy = row.with_name(name)
        copy.write_bytes(row.read_bytes())
        for columns in (None, ["rho"]):
            with pytest.raises(UserError, match="if it is a copy, delete it") as error:
                store.read_trials(columns)
            assert str(copy) in str(error.value)
        copy.unlink()
    scores = ScoreStore(store.folder)
    scores.evals.mkdir()
    (scores.evals / f"{row.stem}.mmlu.0123abcd (1).parquet").touch()
    with pytest.raises(UserError, match="if it is a copy, delete it"):
        scores.read()
