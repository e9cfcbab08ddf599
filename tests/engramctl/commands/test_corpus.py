import json
import shlex

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
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
    assert "left out of 402 documents read: 1 duplicate, 1 without text" in result.stdout
    assert "not comparable" not in result.output
    assert "3-grams" in result.stdout
    again = shlex.join(["engramctl", "sweep", "--budget", "20m", *map(str, arguments)])
    assert f"next: `{again} --name text-" in result.stderr
    folder = result.stderr.split("kept in ")[1].split(" (")[0]

    facts = json.loads(run(*arguments, "--json").stdout)
    assert facts["folder"] == folder
    assert facts["train_documents"] + facts["val_documents"] == 400
    assert (facts["read_documents"], facts["unknown_tokens"], facts["changed_documents"], facts["skipped_files"]) == (402, 0, 0, {})
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


def lossy(vocabulary, lowercase, folder):
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["</s>", "<unk>", *vocabulary])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
    tokenizer.normalizer = normalizers.Lowercase() if lowercase else None
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def test_what_a_tokenizer_loses_is_said_and_kept(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{'a' * (1 + i % 7)} b{i} b"}) + "\n" for i in range(200)))
    words = ["a" * n for n in range(1, 8)] + ["b", " "]
    arguments = ["--corpus", f"files:{tmp_path}/a.jsonl", "--tokenizer", lossy(words, False, tmp_path), "--cache", tmp_path / "cache"]
    facts = json.loads(run(*arguments, "--json").stdout)
    assert (facts["unknown_token"], facts["unknown_tokens"], facts["unknown_percent"]) == ("<unk>", 200, 20.0)
    assert (facts["changed_documents"], facts["changed_percent"]) == (200, 100.0)
    meta = json.loads((tmp_path / "cache" / "corpora" / facts["folder"] / "meta.json").read_text())
    assert (meta["unknown_tokens"], meta["changed_documents"]) == (200, 200)
    said = " ".join(run(*arguments).stdout.split())
    assert "20 % of the tokens are <unk>, 200 of 200 documents do not decode back to their text; bits per byte are not comparable" in said


def test_lower_casing_is_a_loss_without_unknown_tokens(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{'A' if i < 50 else 'a'} b{i}"}) + "\n" for i in range(200)))
    tokenizer = lossy(["a", " ", *(f"b{i}" for i in range(200))], True, tmp_path)
    facts = json.loads(run("--corpus", f"files:{tmp_path}/a.jsonl", "--tokenizer", tokenizer, "--cache", tmp_path / "c", "--json").stdout)
    assert (facts["unknown_tokens"], facts["changed_documents"]) == (0, 50)


def test_a_corpus_of_before_is_read_and_knows_less(texts, tmp_path):
    arguments = ["--corpus", f"files:{texts}/*.jsonl", "--text-column", "body", "--vocab-size", 300, "--cache", tmp_path / "cache"]
    facts = json.loads(run(*arguments, "--json").stdout)
    file = tmp_path / "cache" / "corpora" / facts["folder"] / "meta.json"
    new = ("read_documents", "unknown_token", "unknown_tokens", "changed_documents", "skipped_files")
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name not in new}))
    again = json.loads(run(*arguments, "--json").stdout)
    assert again == {**facts, **dict.fromkeys((*new, "unknown_percent", "changed_percent"))}
    assert run(*arguments).exit_code == 0
