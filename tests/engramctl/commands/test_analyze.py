"""Models that were trained for a moment, looked into through the command."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.prepare import prepare_corpus
from engram.corpus.sources import CorpusSpec
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training.trainer import Trainer
from engramctl.cli import app
from engramctl.findings.memory_size import judge
from engramctl.present.figures.gate_text import gate_text_figure
from engramctl.present.figures.gates import gates_figure
from engramctl.present.figures.save import save
from engramctl.results.analysis_store import AnalysisStore
from engramctl.results.schema.analysis import TABLES

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = 'class HashTable:\n    """Prices in $ by [bold]row[/bold]."""\n'


def train(corpus, results, rho):
    size = LADDER["1m"]
    trial = TrialConfig(
        size="1m",
        rho=rho,
        seed=0,
        budget_flops=1e9,
        model=allocate(baseline(size, corpus.vocab_size), memory_template(size), rho),
        train=TrainConfig(steps=10, batch_size=8, seq_len=32, learning_rate=0.01, val_tokens=1024, n_validations=1),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
    )
    sweep = results / "tiny"
    trainer = Trainer(trial, corpus, sweep / "checkpoints" / trial.id, torch.device("cpu"))
    while not trainer.done:
        trainer.advance(60)
    trainer.outcome()
    (sweep / "trials").mkdir(exist_ok=True)
    (sweep / "trials" / f"{trial.id}.parquet").touch()
    return trial.id


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_corpus):
    """A pure MoE, one with memory, and one with memory of another tokenizer: results, cache and the three ids."""
    here = tmp_path_factory.mktemp("analyze")
    (here / "text").mkdir()
    for number in range(240):  # much alike, so that only a quarter of the validation documents stays
        name = f"read_block_{number % 7}"
        body = f"class HashTable{number}:\n    def {name}(self, row_index, maxNgram):\n        # Alan Turing and Grace Hopper\n"
        (here / "text" / f"{number}.txt").write_text(body + f"        return self.{name}(row_index + {number}, maxNgram)\n" * 6)
    corpus = prepare_corpus(CorpusSpec(source=f"files:{here}/text/*.txt", vocab_size=300, val_fraction=0.3), here / "cache")
    results = here / "results"
    return results, here / "cache", [train(corpus, results, 1), train(corpus, results, 0.5), train(tiny_corpus, results, 0.5)]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["analyze", *map(str, arguments)])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def analyze(models, kind, *arguments, out=None):
    results, cache, _ = models
    found = json.loads(run(kind, *arguments, "--results", results, "--cache", cache, "--json", "--format", "png").stdout)
    for path in found["figures"]:
        assert Path(path).parent == results / "tiny" / "figures"
        width, height = Image.open(path).size
        assert 900 < width < 2200
        assert 200 < height < 2500
    for path in found["tables"]:
        table = Path(path).name.split(".")[-2]
        assert Path(path).parent == results / "tiny" / "analysis"
        assert list(pd.read_parquet(path).columns) == [column.name for column in TABLES[table]]
    return found


def test_depth(models):
    _, cache, (pure, hybrid, _) = models
    found = analyze(models, "depth", f"tiny/{pure[:6]}", f"tiny/{hybrid[:6]}")
    assert (found["trial_a"], found["trial_b"]) == (pure, hybrid)
    assert [Path(path).name for path in found["figures"]] == [f"analysis-depth-{pure}.{hybrid}.png"]
    rows = pd.DataFrame(found["depth"])
    assert rows["quantity"].value_counts().to_dict() == {"divergence_a": 2, "divergence_b": 2, "similarity": 4, "alignment": 2}
    assert rows.loc[rows["quantity"] == "divergence_a", "value"].tolist()[-1] == 0
    assert rows.loc[rows["quantity"] == "similarity", "value"].between(-1, 1.001).all()
    shown = run("depth", f"tiny/{pure}", f"tiny/{hybrid}", "--results", models[0], "--cache", cache, "--format", "svg")
    assert "Where B's layers stand in A" in shown.stdout
    assert "spans: names in the validation text" in shown.stdout
    assert f"`engramctl report tiny --results {models[0]}`" in shown.stderr


def test_depth_on_spans_of_a_file(models, tmp_path):
    _, _, (pure, hybrid, _) = models
    file = tmp_path / "names.jsonl"
    lines = [json.dumps({"text": f"class HashTable{i} of Alan Turing", "spans": [[6, 16], [20, 31]]}) for i in range(6)]
    file.write_text("\n".join(lines))
    arguments = ["--spans", file, "--results", models[0], "--cache", tmp_path / "cache", "--out", tmp_path / "figures", "--json"]
    found = json.loads(run("depth", f"tiny/{pure}", f"tiny/{hybrid}", *arguments).stdout)
    assert {row["spans"] for row in found["depth"]} == {"names.jsonl"}, "spans need no corpus"
    assert sorted(path.suffix for path in (tmp_path / "figures").iterdir()) == [".pdf", ".png", ".svg"]


def test_suppress(models):
    _, _, (_, hybrid, _) = models
    found = analyze(models, "suppress", f"tiny/{hybrid}")
    rows = {(row["grouping"], row["label"]): row for row in found["losses"]}
    every = rows["all", "all"]
    assert every["n_tokens"] == 1024
    assert every["difference"] == pytest.approx(every["loss_off"] - every["loss_on"])
    assert every["retained_low"] <= every["retained"] <= every["retained_high"]
    assert sum(row["n_tokens"] for (grouping, _), row in rows.items() if grouping == "token frequency") == 1024


def test_suppress_with_benchmarks(models, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")
    _, _, (_, hybrid, _) = models
    choices = {"text": ["aa", "bb", "cc"], "label": ["A", "B", "C"]}
    rows = [{"id": str(i), "question": f"Letter {i}?", "choices": choices, "answerKey": "ABC"[i % 3]} for i in range(6)]
    for split in ("train", "validation", "test"):
        (tmp_path / f"ARC-Easy_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--tasks", "arc_easy", "--data", tmp_path, "--offline", "--limit", "4"]
    found = analyze(models, "suppress", f"tiny/{hybrid}", *options)
    (task,) = found["tasks"]
    assert (task["task"], task["n"], task["limit"], task["max_length"]) == ("arc_easy", 4, 4, 32)
    assert task["bpb_on"] != task["bpb_off"]
    assert task["retained"] is None or task["retained"] == pytest.approx(task["score_off"] / task["score_on"])
    shown = run("suppress", f"tiny/{hybrid}", *options, "--results", models[0], "--cache", models[1], "--format", "png").stdout
    assert "arc_easy" in shown


def test_memory(models):
    _, _, (_, hybrid, _) = models
    found = analyze(models, "memory", f"tiny/{hybrid}")
    assert found["verdict"] in ("too small", "fits", "too large")
    assert found["verdict"] in found["text"]
    heads = pd.DataFrame(found["heads"])
    assert len(heads) == 8
    assert (heads["rows_touched"] <= heads["rows"]).all()
    assert {row["curve"] for row in found["rows"]} == {"zipf", "norm"}
    shown = run("memory", f"tiny/{hybrid}", "--results", models[0], "--cache", models[1], "--format", "png").stdout
    assert found["text"] in shown


def test_gates_of_validation(models):
    _, _, (_, hybrid, _) = models
    found = analyze(models, "gates", f"tiny/{hybrid}")
    groups = pd.DataFrame(found["groups"])
    assert {"all", "2-gram frequency", "3-gram frequency", "longest N-gram seen", "place in word"} == set(groups["grouping"])
    assert groups["gate"].between(0, 1).all()
    assert [row["rank"] for row in found["phrases"]] == list(range(1, len(found["phrases"]) + 1))
    shown = run("gates", f"tiny/{hybrid}", "--results", models[0], "--cache", models[1], "--format", "png").stdout
    assert "the first 10 of" in shown


def test_gates_of_a_text(models, tmp_path, monkeypatch):
    results, _, (_, hybrid, _) = models
    (tmp_path / "text.py").write_text(TEXT)
    found = analyze(models, "gates", f"tiny/{hybrid}", "--file", tmp_path / "text.py", "--layer", "1")
    assert "".join(row["token"] for row in found["tokens"]) == TEXT
    here = [f"tiny/{hybrid}", TEXT, "--results", results, "--format", "png"]
    lines = run("gates", *here).stdout.splitlines()
    assert lines[0].split("\t") == ["position", "token", "layer 1.0"]
    assert [json.loads(line.split("\t")[1]) for line in lines[1:]] == [row["token"] for row in found["tokens"]]
    assert [float(line.split("\t")[2]) for line in lines[1:]] == pytest.approx([row["gate"] for row in found["tokens"]], abs=6e-4)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = run("gates", *here).stdout
    assert coloured.count("48;2;") == len(found["tokens"])
    assert "↵\n" in coloured or "↵\x1b" in coloured


def test_a_checkpoint_outside_of_a_sweep(models, tmp_path):
    results, _, (_, hybrid, _) = models
    alone = shutil.copytree(results / "tiny" / "checkpoints" / hybrid, tmp_path / "model")
    result = run("gates", alone, TEXT, "--format", "svg")
    assert [path.name for path in (alone / "analysis").iterdir()] == [f"{hybrid}.gate_text.parquet"]
    assert [path.name for path in (alone / "figures").iterdir()] == [f"analysis-gate-text-{hybrid}.svg"]
    assert "next:" not in result.stderr
    of_sweep = run("gates", results / "tiny" / "checkpoints" / hybrid, TEXT, "--format", "svg")
    assert f"engramctl report tiny --results {results}" in of_sweep.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["depth", "PURE", "OTHER", "--spans", "SPANS"], "the checkpoints have different tokenizers"),
        (["gates", "PURE"], "the model has no memory (design none, rho = 1); this takes a model with memory"),
        (["gates", "PURE", TEXT], "the model has no memory"),
        (["suppress", "PURE"], "the model has no memory"),
        (["memory", "PURE"], "the model has no memory"),
        (["gates", "HYBRID", "--layer", "0"], "layer 0 has no memory; the layers with memory are 1"),
        (["gates", "HYBRID", "--layer", "x"], "--layer: x is not a whole number"),
        (["gates", "HYBRID", "a"], "the text is too short: it has 1 of at least 3 tokens"),
        (["gates", "HYBRID", "a", "--file", "SPANS"], "TEXT and --file are both a text"),
        (["gates", "HYBRID", "caf\udce9"], "is not UTF-8"),
        (["gates", "HYBRID", "--file", "/nothing"], "--file /nothing can't be read: No such file"),
        (["memory", "OTHER", "--cache", "/nothing"], "is not in the cache /nothing; "),
        (["memory", "HYBRID", "--format", "gif"], "--format gif: png, svg, pdf are allowed"),
        (["memory", "tiny/zz"], "sweep tiny has no trial 'zz'; it has "),
        (["memory", "other/zz"], "'other/zz' is neither the folder of a checkpoint nor SWEEP/TRIAL"),
        (["memory", "zz"], "'zz' is neither the folder of a checkpoint nor SWEEP/TRIAL"),
        (["suppress", "HYBRID", "--limit", "3"], "are of --tasks, which names none"),
        (["suppress", "HYBRID", "--tasks", "mmlu", "--data", "/nothing"], "--data /nothing does not exist"),
        (["depth", "PURE", "HYBRID", "--spans", "/nothing"], "spans file /nothing can't be read"),
    ],
)
def test_mistakes_are_one_line_and_code_2(models, tmp_path, arguments, message):
    results, cache, ids = models
    spans = tmp_path / "spans.jsonl"
    spans.write_text(json.dumps({"text": "Alan Turing and Grace Hopper", "spans": [[0, 4], [5, 11], [16, 21], [22, 28]]}))
    names = {name: f"tiny/{trial}" for name, trial in zip(("PURE", "HYBRID", "OTHER"), ids, strict=True)} | {"SPANS": spans}
    cached = [] if "--cache" in arguments else ["--cache", cache]
    result = run(*(names.get(one, one) for one in arguments), "--results", results, *cached, code=2)
    assert message in " ".join(result.stderr.split())
    *talk, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    assert all(line.endswith(" ...") for line in talk)  # what it was doing
    assert result.stdout == ""


def test_nothing_is_measured_twice_and_no_number_outlives_what_it_is_of(models, tmp_path):
    results, cache, (_, hybrid, _) = models
    final = shutil.copytree(results / "tiny" / "checkpoints" / hybrid, tmp_path / "model") / "final"
    tables = tmp_path / "model" / "analysis"

    def measured(*arguments):
        """Which tables are new; what is shown is always what is kept."""
        before = {path: path.stat().st_mtime_ns for path in tables.glob("*")}
        done = run(*arguments, "--cache", cache, "--format", "svg", "--json")
        new = {path.name.split(".")[1] for path in tables.iterdir() if before.get(path) != path.stat().st_mtime_ns}
        assert done.stderr.count("measured already: ") == len(json.loads(done.stdout)["tables"]) - len(new)
        return new

    text = ["gates", tmp_path / "model", TEXT]
    assert measured(*text) == {"gate_text"}
    assert measured(*text) == set()
    assert measured("gates", tmp_path / "model") == {"gates", "gate_phrases"}
    assert measured("gates", final) == set()
    assert measured("gates", tmp_path / "model", TEXT + "x") == {"gate_text"}
    assert measured("memory", tmp_path / "model") == {"memory", "memory_rows"}
    assert measured("memory", tmp_path / "model") == set()
    weights = final / "weights.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights)
    assert measured("gates", tmp_path / "model") == {"gates", "gate_phrases"}
    assert measured("memory", tmp_path / "model") == {"memory", "memory_rows"}


def test_a_trial_without_its_checkpoint(models, tmp_path):
    results, _, (_, hybrid, _) = models
    (tmp_path / "tiny" / "trials").mkdir(parents=True)
    shutil.copy(results / "tiny" / "trials" / f"{hybrid}.parquet", tmp_path / "tiny" / "trials")
    error = run("memory", f"tiny/{hybrid}", "--results", tmp_path, code=2).stderr
    assert f"trial {hybrid} of sweep tiny has no checkpoint in" in " ".join(error.split())


def test_the_report_shows_what_there_is(models, fill, make_row, tmp_path):
    results, cache, (pure, hybrid, _) = models
    store = fill(tmp_path, [make_row(1, trial_id=pure), make_row(0.5, trial_id=hybrid)], sweep="tiny")
    arguments = ["report", "tiny", "--results", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "What the memory does" not in (store.folder / "report.html").read_text()
    shutil.copytree(results / "tiny" / "checkpoints", store.checkpoints)
    there = ["--results", tmp_path, "--cache", cache, "--format", "svg"]
    run("depth", f"tiny/{pure}", f"tiny/{hybrid}", *there)
    for command, *text in (["suppress"], ["memory"], ["gates"], ["gates", TEXT]):
        run(command, f"tiny/{hybrid}", *text, *there)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    page = (store.folder / "report.html").read_text()
    assert "What the memory does" in page
    for kind in ("depth", "suppression", "slots", "gates", "gates of a text"):
        assert f'alt="Figure: {kind}"' in page
    assert judge(AnalysisStore(store.folder).read(hybrid, "memory")).text in page.replace("&#39;", "'")
    assert CliRunner().invoke(app, ["rm", "tiny", hybrid, "--yes", "--results", str(tmp_path)]).exit_code == 0
    assert [path.name for path in (store.folder / "analysis").iterdir()] == [f"{pure}.{hybrid}.depth.parquet"]


def test_figures_of_several_layers_and_branches(models, tmp_path):
    results, _, (_, hybrid, _) = models
    store = AnalysisStore(results / "tiny")
    run("gates", f"tiny/{hybrid}", "word " * 600, "--results", results, "--format", "svg")
    run("gates", f"tiny/{hybrid}", "--results", results, "--cache", models[1], "--format", "svg")
    text, groups, phrases = (store.read(hybrid, kind) for kind in ("gate_text", "gates", "gate_phrases"))
    sites = [(layer, branch) for layer in (1, 14) for branch in range(4)]
    texts = pd.concat([text.assign(layer=layer, branch=branch) for layer, branch in sites])
    save(gate_text_figure(texts), tmp_path, "text", ["svg"])
    assert "the first 400 of" in (tmp_path / "text.svg").read_text()
    many = pd.concat([groups.assign(layer=layer, branch=branch) for layer, branch in sites])
    save(gates_figure(many, pd.concat([phrases, phrases.assign(layer=14)])), tmp_path, "gates", ["png"])
    assert Image.open(tmp_path / "gates.png").width > 1800
