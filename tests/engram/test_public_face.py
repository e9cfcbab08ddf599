import subprocess
import sys

import pytest

import engram


@pytest.mark.usefixtures("one_thread")
def test_a_trial_is_trained_and_sampled_in_ten_lines(tiny_corpus, tmp_path):
    import torch

    corpus, folder, cpu, size = tiny_corpus, tmp_path / "trial", torch.device("cpu"), engram.LADDER["1m"]
    model = engram.allocate(engram.baseline(size, corpus.vocab_size), engram.memory_template(size), rho=0.75)
    train = engram.TrainConfig(steps=4, **engram.DEFAULT_RECIPE.train_defaults(size))
    flops = 6 * engram.count_parameters(model).p_active * train.tokens
    trial = engram.TrialConfig(size="1m", rho=0.75, seed=0, budget_flops=flops, model=model, train=train, **corpus.fingerprints)
    trainer = engram.Trainer(trial, corpus, folder, cpu)
    while not trainer.done:
        trainer.advance(seconds=10)
    loss = trainer.outcome().values["val_loss"]
    trained = engram.load_final(folder, cpu)
    (tokens,) = engram.generate(trained.model, [trained.tokenizer.encode("the").ids], 8, trained.end_of_text_id)
    text = trained.tokenizer.decode(tokens)

    assert 0 < loss < 7
    assert text


def test_every_name_is_there_and_no_other():
    for name in engram.__all__:
        assert getattr(engram, name) is not None
    assert set(engram.__all__) <= set(dir(engram))
    with pytest.raises(AttributeError, match="module 'engram' has no attribute 'nothing'"):
        _ = engram.nothing


def test_names_are_imported_when_they_are_used():
    code = "import sys, engram; assert not {'torch', 'pydantic'} & sys.modules.keys(); engram.UserError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
