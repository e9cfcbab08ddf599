import json

import numpy as np
import pytest
from typer.testing import CliRunner

from engramctl.cli import app
from engramctl.results.store import Store

TOKENS = np.full(40, 100)


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0):
        result = CliRunner().invoke(app, ["compare", *arguments, "--results", str(tmp_path)])
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def keep(tmp_path, make_row):
    """Write trials of a sweep, each with documents around its loss; returns their rows."""

    def write(sweep, trials):
        store, rows = Store(tmp_path, sweep), []
        store.check_writable()
        for trial in trials:
            given = dict(trial)
            shift, documents = given.pop("shift", 0.0), given.pop("documents", [f"{i:016x}" for i in range(40)])
            row = make_row(**given) | {"sweep": sweep}
            hard = np.random.default_rng(0).normal(3.0, 0.5, 40) + np.random.default_rng([row["seed"], round(100 * shift)]).normal(
                0, 0.01, 40
            )
            losses = {"n_tokens": TOKENS, "n_bytes": 3 * TOKENS, "loss_sum": (hard + shift) * TOKENS}
            columns = {"document": documents, **losses, "overlap": 0 * hard}
            store.write_trial(row, None, columns if row["status"] == "finished" else None)
            rows.append(row)
        return rows

    return write


def test_two_trials(run, keep):
    a, b = keep("allocation", [{"rho": 0.5}, {"rho": 1.0, "shift": 0.1}])
    names = [f"allocation/{row['trial_id'][:8]}" for row in (a, b)]
    data = json.loads(run(*names, "--json").stdout)
    assert (data["a"]["trial_id"], data["b"]["trial_id"], data["a"]["rho"]) == (a["trial_id"], b["trial_id"], 0.5)
    assert data["low"] < data["difference"] < data["high"] < 0
    assert data["difference"] == pytest.approx(-0.1, abs=0.01)
    assert (data["n_pairs"], data["n_documents"]) == (1, 40)
    lines = run(*names).stdout.splitlines()
    assert lines[1].split()[1] == f"allocation/{a['trial_id']}"
    assert lines[4].startswith(f"A - B: {data['difference']:+.4f} nats per token, 95 % interval")
    assert "A is better by" in lines[5]


def test_two_sweeps_are_paired_by_size_budget_rho_and_seed(run, keep):
    both = [{"rho": rho, "seed": seed} for rho in (0.5, 1.0) for seed in (0, 1, 2)]
    alone = keep("one", [*both, {"rho": 0.25}, {"rho": 0.75, "status": "diverged"}])[6]
    keep("two", [trial | {"shift": 0.1, "memory_design": "value", "variant": "value"} for trial in both[1:]])
    data = json.loads(run("one", "two", "--json").stdout)
    assert [(p["rho"], p["n_pairs"]) for p in data["points"]] == [(0.5, 2), (1.0, 3)]
    assert all(p["high"] < 0 and p["variant"] == "" for p in data["points"])
    assert (data["overall"]["n_pairs"], data["overall"]["n_seeds"]) == (5, 3)
    assert data["overall"]["difference"] == pytest.approx(-0.1, abs=0.01)
    assert set(data["without_partner"]["a"]) == {alone["trial_id"], keep("one", [both[0]])[0]["trial_id"]}
    assert data["without_partner"]["b"] == []
    result = run("one", "two")
    lines = result.stdout.splitlines()
    assert lines[0] == "A: one, B: two; nats per token, 40 documents"
    assert lines[2].split()[:4] == ["3m", "8.2e12", "0.50", "2"]
    assert lines[4].split()[:2] == ["all", "5"]
    assert "left out: 2 finished trials of one without a partner" in result.stderr


def test_trials_of_a_seed_count_once_in_all(run, keep):
    """A difference that depends on the seed alone: ten rhos say no more about it than one."""
    rhos, shifts = [round(0.1 * i, 1) for i in range(10)], (0.0, 0.1, 0.3)
    for sweep, used in (("one", 1), ("ten", 10)):
        keep(sweep, [{"rho": rho, "seed": seed} for rho in rhos[:used] for seed in range(3)])
        shifted = [{"rho": rho, "seed": seed, "shift": shift} for rho in rhos[:used] for seed, shift in enumerate(shifts)]
        keep(f"{sweep}-shifted", shifted)
    one, ten = (json.loads(run(sweep, f"{sweep}-shifted", "--json").stdout)["overall"] for sweep in ("one", "ten"))
    assert (one["n_pairs"], ten["n_pairs"], ten["n_seeds"]) == (3, 30, 3)
    assert ten["difference"] == pytest.approx(one["difference"], abs=1e-9)
    assert ten["high"] - ten["low"] == pytest.approx(one["high"] - one["low"], rel=0.01)
    assert ten["low"] < -0.3  # Student's t with two degrees of freedom: -0.13 -+ 4.3 * 0.15 / sqrt(3)


def test_several_variants_are_paired_by_variant(run, keep):
    trials = [{"rho": 0.5, "variant": name} for name in ("engram", "value")]
    keep("one", trials)
    keep("two", trials)
    data = json.loads(run("one", "two", "--json").stdout)
    assert [(p["variant"], p["n_pairs"]) for p in data["points"]] == [("engram", 1), ("value", 1)]
    assert run("one", "two").stdout.splitlines()[1].split()[0] == "variant"


def refusal(run, *names):
    result = run(*names, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_what_can_t_be_compared_is_one_line(run, keep):
    keep("one", [{"rho": 0.5}, {"rho": 1.0, "status": "diverged"}])
    keep("other-text", [{"rho": 0.5, "corpus_fingerprint": "c1"}])
    keep("other-tokenizer", [{"rho": 0.5, "tokenizer_fingerprint": "71"}])
    keep("other-documents", [{"rho": 0.5, "documents": [f"{i:016x}" for i in range(1, 41)]}])
    keep("other-budget", [{"rho": 0.5, "budget": 1e13}])
    keep("twins", [{"rho": 0.5}, {"rho": 0.5, "learning_rate": 0.1}])
    keep("empty", [{"rho": 0.5, "status": "failed"}])
    assert "differ in their corpus (fingerprints c0 and c1)" in refusal(run, "one", "other-text")
    assert "differ in their tokenizer (fingerprints 70 and 71)" in refusal(run, "one", "other-tokenizer")
    assert "validated on different documents" in refusal(run, "one", "other-documents")
    assert "same size, budget, rho and seed: 3m at 8.2e12 FLOPs, rho 0.50 in one, 3m at 1e13" in refusal(run, "one", "other-budget")
    assert "twins has several finished trials at size 3m, budget 8.2e12, rho 0.50, seed 0" in refusal(run, "one", "twins")
    assert "sweep empty has no finished trial" in refusal(run, "one", "empty")
    assert "two sweeps, or two trials as SWEEP/TRIAL" in refusal(run, "one", "twins/0")
    assert "has no results" in refusal(run, "one", "nope")


def test_trials_that_can_t_be_compared_are_one_line(run, keep):
    a, diverged = (f"one/{row['trial_id']}" for row in keep("one", [{"rho": 0.5}, {"rho": 1.0, "status": "diverged"}]))
    (b,) = (f"other/{row['trial_id']}" for row in keep("other", [{"rho": 0.5, "corpus_fingerprint": "c1"}]))
    assert "has no loss: it diverged" in refusal(run, a, diverged)
    assert "differ in their corpus" in refusal(run, a, b)
    assert "sweep one has no trial 'zzz'; it has " in refusal(run, a, "one/zzz")
    assert "sweep one has no trial ''" in refusal(run, a, "one/")
