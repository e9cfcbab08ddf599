import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training.checkpoints import files as checkpoint
from engram.training.checkpoints.restore import load_final
from engram.training.trainer import Trainer

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def make_trial(corpus, rho=0.5, steps=4) -> TrialConfig:
    size = LADDER["1m"]
    return TrialConfig(
        size="1m",
        rho=rho,
        seed=0,
        budget_flops=1e9,
        model=allocate(baseline(size, corpus.vocab_size), memory_template(size), rho),
        train=TrainConfig(steps=steps, batch_size=8, seq_len=32, learning_rate=0.01, val_tokens=512, n_validations=1),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
    )


def train(trainer: Trainer) -> Trainer:
    while not trainer.done:
        trainer.advance(60)
    trainer.outcome()
    trainer.discard_checkpoints()
    return trainer


@pytest.fixture(scope="module")
def trained(tiny_corpus, tmp_path_factory) -> Trainer:
    """A finished trial; its checkpoint is in `trained.folder / "final"`."""
    return train(Trainer(make_trial(tiny_corpus), tiny_corpus, tmp_path_factory.mktemp("checkpoints") / "trial", CPU))


@pytest.fixture
def final(trained, tmp_path):
    """A copy of the final checkpoint that may be spoilt."""
    return shutil.copytree(trained.folder / "final", tmp_path / "final")


def assert_equal_logits(restored, trainer: Trainer, corpus: Corpus):
    tokens = torch.from_numpy(corpus.val[:200].astype("int64")).view(4, 50)
    with torch.no_grad():
        assert torch.equal(restored.model.logits(tokens), trainer.model.eval().logits(tokens))


@pytest.mark.parametrize("name", ["", "final"])
def test_a_restored_model_is_the_trained_one(trained, tiny_corpus, name):
    restored = load_final(trained.folder / name, CPU)
    assert restored.folder == trained.folder / "final"
    assert restored.trial == trained.trial
    assert restored.end_of_text_id == tiny_corpus.end_of_text_id
    assert not restored.model.training
    assert_equal_logits(restored, trained, tiny_corpus)


def test_a_model_without_memory(tiny_corpus, tmp_path):
    trainer = train(Trainer(make_trial(tiny_corpus, rho=1.0, steps=2), tiny_corpus, tmp_path, CPU))
    assert_equal_logits(load_final(tmp_path, CPU), trainer, tiny_corpus)


def test_a_checkpoint_needs_no_corpus(tiny_corpus, tmp_path):
    """The cache may go even while the trial runs: what is mapped stays, and the tokenizer was read at the start."""
    corpus = Corpus.open(shutil.copytree(tiny_corpus.folder, tmp_path / "corpus"))
    trainer = Trainer(make_trial(corpus, steps=2), corpus, tmp_path / "trial", CPU)
    shutil.rmtree(corpus.folder)
    train(trainer)
    assert sorted(path.name for path in (tmp_path / "trial" / "final").iterdir()) == [
        "state.json",
        "tokenizer.json",
        "trial.json",
        "weights.safetensors",
    ]
    assert_equal_logits(load_final(tmp_path / "trial", CPU), trainer, tiny_corpus)


def test_the_tokenizer_encodes_as_in_training(trained, tiny_corpus):
    tokenizer = load_final(trained.folder, CPU).tokenizer
    start, end = tiny_corpus.val_doc_starts[0], tiny_corpus.val_doc_starts[1] - 1
    document = tiny_corpus.val[start:end].tolist()
    assert tokenizer.encode(tokenizer.decode(document), add_special_tokens=False).ids == document
    assert tiny_corpus.end_of_text_id not in tokenizer.encode("<|endoftext|>", add_special_tokens=False).ids


def mistake(folder) -> str:
    with pytest.raises(UserError) as caught:
        load_final(folder, CPU)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_where_no_checkpoint_is(tmp_path):
    assert "does not exist; expected is the folder of a finished trial" in mistake(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "is a file; expected is" in mistake(tmp_path / "file")
    assert "is not a checkpoint; expected is" in mistake(tmp_path)
    assert "can't be read: File name too long" in mistake(tmp_path / ("x" * 300))


def test_an_interrupted_trial(tiny_corpus, tmp_path):
    trainer = Trainer(make_trial(tiny_corpus), tiny_corpus, tmp_path, CPU, checkpoint_seconds=0)
    while trainer.state.step < 2:
        trainer.advance(0.001)
    for folder in (tmp_path, *tmp_path.glob("step-*")):
        assert "has not finished; continue the sweep" in mistake(folder)


def test_a_config_of_another_version(final):
    file = final / "trial.json"
    trial = json.loads(file.read_text())
    file.write_text(json.dumps({**trial, "model": {**trial["model"], "depth": 3}}))
    assert "is of another version of this program: trial.json.model.depth: no such field" in mistake(final)
    file.write_text(json.dumps({**trial, "model": {**trial["model"], "width": 63}}))
    assert "trial.json.model: attention.n_heads is 2; width 63 must split" in mistake(final)
    file.write_text(json.dumps(trial)[:100])
    assert "is damaged: trial.json is not JSON" in mistake(final)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, "weight norm.weight is nothing instead of (64,)"),
        ({"norm.bias": torch.zeros(64)}, "weight norm.bias is (64,) instead of nothing"),
        ({"norm.weight": torch.zeros(63)}, "weight norm.weight is (63,) instead of (64,)"),
    ],
)
def test_weights_of_another_version(final, change, message):
    weights = {name: tensor for name, tensor in (load_file(final / "weights.safetensors") | change).items() if tensor is not None}
    save_file(weights, final / "weights.safetensors")
    assert f"is of another version of this program: {message}" in mistake(final)


def test_damaged_weights(final):
    file = final / "weights.safetensors"
    content = file.read_bytes()
    for damaged in (content[:-1000], content[:20], b""):
        file.write_bytes(damaged)
        assert "is damaged: weights.safetensors: " in mistake(final)
    file.unlink()
    assert "is damaged: it has no weights.safetensors" in mistake(final)


@pytest.mark.parametrize("change", [{"width": 10_000_000}, {"n_layers": 1_000_000}])
def test_a_config_of_a_model_that_fits_no_machine(final, change):
    config = json.loads((final / "trial.json").read_text())
    config["model"] |= change
    (final / "trial.json").write_text(json.dumps(config))
    assert "too few for the" in mistake(final)


def test_files_that_are_no_files(final):
    for name in ("trial.json", "tokenizer.json", "weights.safetensors"):
        kept = final / f"{name}.kept"
        (final / name).rename(kept)
        os.mkfifo(final / name)
        assert mistake(final)
        (final / name).unlink()
        kept.rename(final / name)


def test_another_tokenizer(final):
    file = final / "tokenizer.json"
    content = file.read_text()
    file.write_text(content.replace("<|endoftext|>", "<eos>"))
    assert "tokenizer.json is not the tokenizer that the model was trained with" in mistake(final)
    file.write_text(content[:100])
    assert "is not a tokenizer.json" in mistake(final)
    file.unlink()
    assert "is of another version of this program: it has no tokenizer.json" in mistake(final)


def test_a_checkpoint_that_replaces_another_is_whole(trained):
    folder = trained.folder / "final"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    trained.outcome()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in trained.folder.iterdir()] == [checkpoint.FINAL]
