"""What is done with a trained model, on a GPU."""

import json

import pandas as pd
import pytest

from .conftest import DEVICE, run, trials


def test_sample(checkpoint):
    written = run("sample", checkpoint, "the", "--tokens", 16, "--temperature", 0, "--device", DEVICE).stdout
    assert written == run("sample", checkpoint, "the", "--tokens", 16, "--temperature", 0, "--device", DEVICE).stdout
    assert len(written) > 3


@pytest.mark.parametrize("place", ["host", "disk"])
def test_sample_with_tables_elsewhere(checkpoint, place):
    options = ("--tokens", 16, "--temperature", 0, "--device", DEVICE)
    in_model = run("sample", checkpoint, "the", *options).stdout
    assert run("sample", checkpoint, "the", *options, "--tables", place).stdout == in_model


def test_extend(finished, checkpoint, cache):
    run("extend", checkpoint, "--length", 128, "--tokens", 5000, "--device", DEVICE, "--cache", cache)
    rows = pd.concat(pd.read_parquet(path) for path in (finished / "tiny" / "extensions").glob("*.parquet"))
    assert len(rows) == 1
    assert rows["val_loss_after"].notna().all()


def test_analyze(finished, checkpoint, cache, tmp_path):
    ids, at = trials(finished)["trial_id"], ("--results", finished, "--device", DEVICE, "--out", tmp_path)
    spans = tmp_path / "spans.jsonl"
    texts = ({"text": f"number {i} is a small text of some words", "spans": [[7, 24]]} for i in range(10, 30))
    spans.write_text("".join(json.dumps(text) + "\n" for text in texts))
    run("analyze", "depth", f"tiny/{ids[1.0]}", f"tiny/{ids[0.5]}", *at, "--cache", cache, "--spans", spans)
    run("analyze", "gates", checkpoint, "a text of a few words", "--device", DEVICE, "--out", tmp_path)
    run("analyze", "suppress", checkpoint, "--device", DEVICE, "--out", tmp_path, "--cache", cache)
    run("analyze", "memory", checkpoint, "--device", DEVICE, "--out", tmp_path, "--cache", cache)
    assert list(tmp_path.glob("*.png"))


def test_eval(finished, tmp_path):
    pytest.importorskip("lm_eval")
    choices = {"text": ["aa", "bb", "cc"], "label": ["A", "B", "C"]}
    rows = [{"id": str(i), "question": f"Which letter has number {i}?", "choices": choices, "answerKey": "ABC"[i % 3]} for i in range(4)]
    for split in ("train", "validation", "test"):
        (tmp_path / f"ARC-Easy_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--sweep", "tiny", "--results", finished, "--device", DEVICE, "--data", tmp_path, "--offline", "--workers", 3)
    run("eval", "arc_easy", *options)
    rows = pd.concat(pd.read_parquet(path) for path in (finished / "tiny" / "evals").rglob("*.parquet"))
    assert rows["trial_id"].nunique() == 3


def test_report_and_fit_read_the_rows(finished):
    assert json.loads(run("status", "tiny", "--results", finished, "--json").stdout)
    run("plot", "tiny", "--results", finished)
    run("report", "tiny", "--results", finished)
