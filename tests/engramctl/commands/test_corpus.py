import dataclasses
import json
import random
import shlex
import string

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from typer.testing import CliRunner

from engram.corpus.dataset import Corpus
from engram.corpus.split import SplitFacts
from engramctl.cli import app

OF_THE_SPLIT = [*(field.name for field in dataclasses.fields(SplitFacts)), "val_overlap_16", "val_overlap_32"]


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
    new = ["read_documents", "unknown_token", "unknown_tokens", "changed_documents", "skipped_files", *OF_THE_SPLIT]
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name not in new}))
    again = json.loads(run(*arguments, "--json").stdout)
    assert again == {**facts, **dict.fromkeys((*new, "unknown_percent", "changed_percent"))}
    result = run(*arguments)
    assert result.exit_code == 0
    assert "near-duplicate" not in result.stdout
    assert "stands in training is not known" in result.stdout


def test_how_the_text_was_divided_is_said_and_kept(tmp_path):
    generator = random.Random(0)
    texts = ["\n".join("".join(generator.choices(string.ascii_lowercase, k=40)) for _ in range(20)) for _ in range(60)]
    copies = [text.replace("a", "b", 2) for text in texts[:5]]
    shared = "\n".join(texts[59].split("\n")[:3])  # in every second text: too little for a near-duplicate
    rows = [{"text": text} for text in [*copies, *(f"{shared}\n{text}" if i % 2 else text for i, text in enumerate(texts))]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--corpus", f"files:{tmp_path}/a.jsonl", "--vocab-size", 300, "--cache", tmp_path / "cache"]
    facts = json.loads(run(*arguments, "--json").stdout)
    assert (facts["near_duplicate_documents"], facts["near_duplicate_clusters"]) == (10, 5)
    assert facts["train_components"] + facts["val_components"] + facts["overlap_documents"] == 60
    assert (facts["train_packages"], facts["val_packages"]) == (None, None)
    assert 0 <= facts["val_overlap_32"] <= facts["val_overlap_16"] < 0.5
    assert 0 <= facts["val_line_share"] < 0.3
    meta = json.loads((tmp_path / "cache" / "corpora" / facts["folder"] / "meta.json").read_text())
    assert {name: meta[name] for name in OF_THE_SPLIT} == {name: facts[name] for name in OF_THE_SPLIT}
    said = " ".join(run(*arguments).stdout.split())
    assert (
        f"10 near-duplicates in 5 clusters, each on one side whole; components in training and validation: {facts['train_components']}"
        in said
    )
    assert f"left out of validation for what training has of them: {facts['overlap_documents']} document" in said
    assert "packages" not in said
