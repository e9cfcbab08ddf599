import json

import pytest

from engram.errors import UserError
from engramctl.results.manifest import Manifest
from engramctl.results.schema.columns import SCHEMA_VERSION
from engramctl.results.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, "allocation")


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_manifest(store):
    manifest = Manifest.model_validate({"sweep": {"question": "Where?"}, "budgets": {"20m for 1m": 1e12}, "trials": []})
    store.write_manifest(manifest)
    assert json.loads(store.manifest.read_text()) == {
        "sweep": {"question": "Where?"}, "budgets": {"20m for 1m": 1e12}, "trials": [], "schema_version": SCHEMA_VERSION,
    }  # fmt: skip
    kept = store.read_manifest()
    assert (kept.sweep, kept.budgets, kept.trials) == (manifest.sweep, manifest.budgets, ())

    def of_shape(**content):
        return json.dumps({"schema_version": SCHEMA_VERSION, **content})

    trial = {"size": "1m", "budget_flops": 1e12, "variant": "", "rho": 0.5, "seed": 0}
    for content, message in (
        (json.dumps({"schema_version": 99}), "schema version 99"),
        ("{", "not JSON"),
        ("[]", "JSON list"),
        (of_shape(trials="abc"), "trials: 'abc' is not allowed"),
        (of_shape(trials=[{"trial_id": "a"}]), "trials.0.size: this field is required"),
        (of_shape(trials=[trial | {"trial_id": "a0/../../../../precious/sub"}]), "trials.0: trial_id: 'a0/../.*' is not allowed: 12 hex"),
        (of_shape(trials=[trial | {"trial_id": "0123456789a*"}]), "trial_id: .* is not allowed"),
        (
            of_shape(trials=[trial | {"trial_id": "0123456789ab", "variant": "\ud800"}]),
            "variant: .* is not allowed: it has half a character",
        ),
        (of_shape(corpus={"folder": "../x", "fingerprint": "", "tokenizer_fingerprint": "", "vocab_size": 1}), "corpus.folder: '../x'"),
        (of_shape(budgets=[1e12]), "budgets: .* is not allowed"),
        (of_shape(sweep={"slots": "many"}), "sweep.slots: 'many' is not allowed"),
    ):
        store.manifest.write_text(content)
        with pytest.raises(UserError, match=message) as error:
            store.read_manifest()
        assert "sweep.json" in one_line(error)
