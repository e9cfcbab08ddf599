import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from typer.testing import CliRunner

from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.model.generation import generate
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training.checkpoints.restore import load_final
from engram.training.trainer import Trainer
from engramctl.cli import app
from engramctl.commands.sample import continuation

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tiny_corpus, tmp_path_factory):
    """Checkpoints of a trial that has finished and whose corpus is gone."""
    here = tmp_path_factory.mktemp("sample")
    corpus = Corpus.open(shutil.copytree(tiny_corpus.folder, here / "corpus"))
    size = LADDER["1m"]
    trial = TrialConfig(
        size="1m",
        rho=0.5,
        seed=0,
        budget_flops=1e9,
        model=allocate(baseline(size, corpus.vocab_size), memory_template(size), 0.5),
        train=TrainConfig(steps=20, batch_size=8, seq_len=32, learning_rate=0.01, val_tokens=512, n_validations=1),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
    )
    trainer = Trainer(trial, corpus, here / trial.id, CPU)
    while not trainer.done:
        trainer.advance(60)
    trainer.outcome()
    shutil.rmtree(corpus.folder)
    return here / trial.id


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["sample", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def samples(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def test_json_is_what_generate_gives(folder):
    restored = load_final(folder, CPU)
    texts = ["the model", "", "a much longer text than the others, with wörds"]
    prompts = [restored.tokenizer.encode(text, add_special_tokens=False).ids or [restored.end_of_text_id] for text in texts]
    new = generate(restored.model, prompts, 9, restored.end_of_text_id)
    assert samples(folder, *texts, "--tokens", 9) == {
        "checkpoint": str(folder / "final"),
        "trial_id": folder.name,
        "samples": [
            {"prompt": text, "text": restored.tokenizer.decode(ids), "tokens": len(ids)} for text, ids in zip(texts, new, strict=True)
        ],
    }


def test_a_pipe_gets_text_and_continuation_and_nothing_else(folder):
    texts = ["one\ttwo  [bold]three[/bold]\r\n " + "word " * 60, "", "zwei\x1b[31m"]
    result = run(folder / "final", *texts)
    expected = [f"{sample['prompt']}{sample['text']}\n" for sample in samples(folder, *texts)["samples"]]
    assert result.stdout_bytes.decode() == "\n".join(expected)
    assert result.stderr == ""


def test_a_terminal_gets_the_prompt_dim_and_no_control_characters(folder, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = "[bold]red\x1b[31m\x9b1m " + "word " * 60
    output = run(folder, text, "--tokens", 5).stdout
    assert output.startswith("\x1b[2m[bold]red␛[31m\ufffd1m word")
    assert output.count("\x1b") == 2
    assert output.count("\n") == 1


def test_temperature_and_seed(folder):
    greedy, again, cold = (samples(folder, "x", *options) for options in ([], ["--seed", 5], ["--temperature", 1e-4]))
    assert greedy == again == cold
    one, same, other = (samples(folder, "x", "--temperature", 1, "--seed", seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_tokens_is_a_maximum(folder):
    assert [samples(folder, "x", "--tokens", n, "--temperature", 1)["samples"][0]["tokens"] for n in (1, 7)] == [1, 7]
    assert samples(folder, "x")["samples"][0]["tokens"] <= 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "nan"], "--temperature is nan; it must be a number from 0 up"),
        (["--temperature", "-1"], "--temperature is -1; it must be a number from 0 up"),
        (["--temperature", "inf"], "--temperature is inf; it must be a number from 0 up"),
        (["--device", "tpu"], "device 'tpu' is unknown; use auto, cpu, cuda or cuda:N"),
        (["caf\udce9"], r"TEXT 'caf\udce9' is not UTF-8"),
    ],
)
def test_mistakes_are_one_line_and_code_2(folder, arguments, message):
    result = run(folder, "x", *arguments, code=2)
    assert result.stderr == f"error: {message}\n"
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["--tokens", "0"], ["--seed", "-1"], ["--seed", str(2**64)]])
def test_numbers_out_of_range(folder, arguments):
    assert arguments[0] in run(folder, "x", *arguments, code=2).stderr


def test_a_text_is_needed(folder):
    assert "TEXT" in run(folder, code=2).stderr


def test_what_is_not_a_checkpoint(folder, tmp_path):
    for wrong, message in ((tmp_path / "none", "does not exist"), (folder.parent, "is not a checkpoint")):
        error = run(wrong, "x", code=2).stderr
        assert error.startswith("error: ")
        assert f"{message}; expected is the folder of a finished trial" in error
        assert len(error.splitlines()) == 1
    (tmp_path / "step-000000002").mkdir()
    assert "has not finished; continue the sweep" in run(tmp_path, "x", code=2).stderr


def test_a_space_that_a_decoder_would_drop_stays():
    """SentencePiece's decoder treats the first token that it is given as the start of the text."""
    tokenizer = Tokenizer(models.WordLevel({"▁the": 0, "▁cat": 1, "s": 2, "</s>": 3}, unk_token="</s>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    assert tokenizer.decode([1]) == "cat"
    assert continuation(tokenizer, [0], [1]) == " cat"
    assert continuation(tokenizer, [0, 1], [2]) == "s"
    assert continuation(tokenizer, [0], []) == ""


def test_tables_outside_the_model_change_nothing_but_the_rounding_of_rows(folder):
    inside = samples(folder, "one two", "--tokens", "12")["samples"]
    for place in ("host", "disk"):
        assert samples(folder, "one two", "--tokens", "12", "--tables", place)["samples"] == inside
    for row_format in ("bf16", "int8", "fp8"):
        rounded = [samples(folder, "one two", "--tokens", "12", "--tables", p, "--row-format", row_format) for p in ("host", "disk")]
        assert rounded[0]["samples"] == rounded[1]["samples"]
    assert len(list(folder.rglob("*.rows"))) == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--tables", "ssd"], "--tables ssd: process, host or disk is expected"),
        (["--row-format", "int8"], "--row-format int8 is for --tables host or disk"),
        (["--tables", "disk", "--row-format", "int4"], "--row-format int4: fp32, bf16, int8, fp8 are allowed"),
        (["--tables", "disk", "--table-cache", "10"], "a table cache of 10 bytes holds 0 rows"),
        (["--tables", "disk", "--table-cache", "900TB"], "is larger than the free memory"),
    ],
)
def test_mistaken_table_options_are_one_line(folder, wrong, message):
    result = run(folder, "one two", *wrong, code=2)
    (line,) = result.stderr.splitlines()
    assert message in line
