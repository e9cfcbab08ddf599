import json

import pytest
from typer.testing import CliRunner

from engram.corpus.dataset import Corpus
from engramctl.cli import app


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    rows = [json.dumps({"body": f"Document {i}: the quick brown fox number {i * i}"}) for i in range(400)]
    (folder / "a.jsonl").write_text("\n".join([*rows, rows[0], '{"body": " "}']))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["corpus", *map(str, arguments)], env={"COLUMNS": "140", "TERM": "dumb"})


def test_a_table_then_where_it_is_and_what_to_do_next(texts, tmp_path):
    arguments = ["--corpus", f"files:{texts}/*.jsonl", "--text-column", "body", "--vocab-size", 300, "--cache", tmp_path / "cache"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "1 duplicates, 1 without text" in result.stdout
    assert "3-grams" in result.stdout
    assert "next: engramctl sweep" in result.stderr
    folder = result.stderr.split("kept in ")[1].split(" (")[0]

    facts = json.loads(run(*arguments, "--json").stdout)
    assert facts["folder"] == folder
    assert facts["train_documents"] + facts["val_documents"] == 400
    assert len(Corpus.open(tmp_path / "cache" / "corpora" / folder).train) == facts["train_tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "pyhton"], "allowed are python, files:GLOB or hf:"),
        (["--corpus", "files:/nowhere/*"], "files:/nowhere/* matches no file"),
        (["--corpus-bytes", "lots"], "'lots' is not a size"),
        (["--vocab-size", "100"], "at least 257"),
        (["--tokenizer", "missing.json"], "tokenizer missing.json is not a file"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, message):
    result = run(*arguments, "--cache", tmp_path)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in result.stderr


def test_the_cap_counts_bytes_that_are_kept(texts, tmp_path):
    result = run(
        "--corpus", f"files:{texts}/*", "--text-column", "body", "--corpus-bytes", "10k", "--cache", tmp_path, "--vocab-size", 300, "--json"
    )
    facts = json.loads(result.stdout)
    assert 9_900 < facts["train_bytes"] + facts["val_bytes"] <= 10_000
