import numpy as np
import pandas as pd
import pytest

from engram.errors import UserError
from engramctl.findings.document_losses import observations
from engramctl.results.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path, "allocation")
    store.check_writable()
    return store


def keep(store, row, documents, **columns):
    store.write_trial(row, None, documents | columns)
    return row["trial_id"]


def test_documents_are_aligned_by_id_and_rows_keep_their_order(store, make_row, documents):
    a = keep(store, make_row(0.2, seed=1), documents)
    turned = {name: values[::-1] for name, values in documents.items()}
    b = keep(store, make_row(0.8, seed=2), turned, loss_sum=[80.0, 300.0])
    for order in ([a, b], [b, a]):
        found = observations(store, store.read_trials().set_index("trial_id", drop=False).loc[order], "rho")
        pick = [0, 1] if order == [a, b] else [1, 0]
        assert found.x.tolist() == np.array([0.2, 0.8])[pick].tolist()
        assert found.seed.tolist() == np.array([1, 2])[pick].tolist()
        assert found.n_tokens.tolist() == [100, 28]
        assert found.loss_sum.tolist() == np.array([[310.0, 88.5], [300.0, 80.0]])[pick].tolist()
    assert found.loss.tolist() == [380 / 128, 398.5 / 128]
    assert observations(store, store.read_trials(), "n_slots").x.dtype == float


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"document": ["aa", "cc"]}, "validated on different documents: 2 .128 tokens. and 2 .128 tokens."),
        ({"n_tokens": [100, 29]}, "validated on different documents: 2 .* and 2 .*129 tokens"),
        (
            {"document": ["aa"], "n_tokens": [100], "n_bytes": [300], "loss_sum": [310.0], "overlap": [None]},
            "different documents: 2 .*and 1 ",
        ),
    ],
)
def test_other_documents_are_refused(store, make_row, documents, columns, message):
    ids = [keep(store, make_row(0.2), documents), keep(store, make_row(0.8), documents, **columns)]
    rows = store.read_trials().set_index("trial_id", drop=False).loc[ids]
    with pytest.raises(UserError, match=message) as error:
        observations(store, rows, "rho")
    assert "\n" not in str(error.value)
    assert all(trial_id in str(error.value) for trial_id in ids)


@pytest.mark.parametrize("what", ["corpus", "tokenizer"])
def test_other_text_is_refused_before_documents_are_read(store, make_row, what):
    for rho, fingerprint in ((0.2, "a1"), (0.8, "b2")):
        store.write_trial(make_row(rho, **{f"{what}_fingerprint": fingerprint}), None, None)
    with pytest.raises(UserError, match=f"differ in their {what} .fingerprints (a1 and b2|b2 and a1)"):
        observations(store, store.read_trials(), "rho")


def test_a_trial_without_documents_is_named(store, make_row, documents):
    keep(store, make_row(0.2), documents)
    store.write_trial(make_row(0.8), None, None)
    with pytest.raises(UserError, match=f"trial {make_row(0.8)['trial_id']} of sweep allocation has no documents"):
        observations(store, store.read_trials(), "rho")


def test_unfinished_trials_are_the_callers_mistake(store, make_row):
    store.write_trial(make_row(status="diverged"), None, None)
    for trials in (store.read_trials(), pd.DataFrame({"status": []})):
        with pytest.raises(ValueError, match="finished trials are expected"):
            observations(store, trials, "rho")
