import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engram.config.model import RopeConfig, YarnConfig
from engram.config.training import CosineSchedule, TrainConfig, WSDSchedule
from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.memory.designs.registry import DESIGNS
from engram.model.rotary import frequencies
from engram.scaling.accounting import train_flops_per_token
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training.checkpoints.restore import load_final
from engram.training.extension import extension
from engram.training.trainer import Trainer

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def make_trial(corpus=None, design="engram", rho=0.5, attention="mha", **train) -> TrialConfig:
    size = LADDER["1m"]
    settings = {"steps": 20, "batch_size": 8, "seq_len": 32, "learning_rate": 0.01, "val_tokens": 512, "n_validations": 1, **train}
    return TrialConfig(
        size="1m",
        rho=rho,
        seed=0,
        budget_flops=1e9,
        model=allocate(baseline(size, corpus.vocab_size if corpus else 400, attention), memory_template(size, design), rho),
        train=TrainConfig(**settings),
        corpus_fingerprint=corpus.fingerprint if corpus else "c",
        tokenizer_fingerprint=corpus.tokenizer_fingerprint if corpus else "t",
    )


def finish(trainer: Trainer) -> Trainer:
    while not trainer.done:
        trainer.advance(60)
    trainer.outcome()
    return trainer


@pytest.mark.parametrize(("trained", "length", "channels"), [(64, 1024, 32), (512, 5120, 64), (4096, 32768, 64), (100, 150, 6)])
def test_yarn_is_transformers_yarn(trained, length, channels):
    scale = length / trained
    parameters = {
        "rope_type": "yarn", "rope_theta": 10_000.0, "factor": scale, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.707,
        "mscale_all_dim": 0.0, "original_max_position_embeddings": trained,
    }  # fmt: skip
    theirs = LlamaConfig(head_dim=channels, max_position_embeddings=length, rope_parameters=parameters)
    expected, _ = ROPE_INIT_FUNCTIONS["yarn"](theirs, CPU)
    yarn = YarnConfig(original_length=trained, scale=scale)
    torch.testing.assert_close(frequencies(RopeConfig(yarn=yarn), channels, CPU), expected, rtol=1e-6, atol=0)
    assert yarn.score_scale == pytest.approx((0.1 * 0.707 * math.log(scale) + 1) ** 2)


def test_what_an_extension_is():
    source = make_trial(schedule=CosineSchedule(), optimizer={"kind": "muon"}, steps=1000).model_copy(update={"axes": (("a", "b"),)})
    longer = extension(source, 128)
    assert longer.model.attention.rope.yarn == YarnConfig(original_length=32, scale=4, alpha=1, beta=32, factor=0.707)
    assert longer.model.attention.model_copy(update={"rope": RopeConfig()}) == source.model.attention
    assert longer.model.model_copy(update={"attention": source.model.attention}) == source.model
    train = longer.train
    assert (train.seq_len, train.batch_size, train.tokens_per_step) == (128, 2, source.train.tokens_per_step)
    assert train.steps == round(1000 * 30 / 262)
    assert (train.learning_rate, train.schedule) == (pytest.approx(0.001), WSDSchedule())
    assert (train.optimizer, train.val_tokens) == (source.train.optimizer, source.train.val_tokens)
    assert longer.budget_flops == train_flops_per_token(source.model) * train.tokens
    assert (longer.seed, longer.axes, longer.continues) == (source.seed, source.axes, source.id)
    assert TrialConfig.model_validate_json(longer.model_dump_json()) == longer


def test_tokens_and_rate_may_be_given_and_a_batch_has_a_sequence():
    longer = extension(make_trial(), 10_000, tokens=50_000, rate=0.5)
    assert (longer.train.batch_size, longer.train.steps, longer.train.learning_rate) == (1, 5, 0.5)
    assert extension(make_trial(), 64, tokens=1).train.steps == 1


def test_an_extension_of_an_extension_counts_from_the_first_length():
    twice = extension(extension(make_trial(), 64), 256)
    assert twice.model.attention.rope.yarn == YarnConfig(original_length=32, scale=8)
    assert twice.continues == extension(make_trial(), 64).id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 32}, "length is 32; it must be more than the 32 tokens that trial"),
        ({"length": 64, "tokens": 0}, "tokens is 0; it must be more than 0"),
        ({"length": 64, "tokens": math.nan}, "tokens is nan; it must be more than 0"),
        ({"length": 64, "rate": -1.0}, "rate is -1; it must be more than 0"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        extension(make_trial(), **arguments)


def test_ids_are_those_of_before_extensions_were_there():
    assert [make_trial(rho=rho).id for rho in (0.5, 1.0)] == ["d8e4aaa366df", "83c9a98e6a60"]
    source = make_trial()
    other = source.model_copy(update={"budget_flops": 2e9})
    ids = {source.id, other.id, *(extension(trial, length).id for trial in (source, other) for length in (64, 128))}
    assert len(ids) == 6  # what an extension starts from is part of its id


def test_how_rows_are_kept_is_part_of_an_id():
    assert len({make_trial(**train).id for train in ({}, {"table_optimizer": "adagrad"}, {"table_format": "bf16"})}) == 3


def test_a_config_of_before_extensions_were_there_is_read():
    old = json.loads(make_trial().model_dump_json())
    del old["continues"], old["train"]["table_optimizer"], old["train"]["table_format"]
    assert TrialConfig.model_validate(old) == make_trial()


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_goes_on_where_its_source_ended(tiny_corpus, tmp_path, design):
    source = make_trial(tiny_corpus, design, 0.3, "mla", steps=3, optimizer={"kind": "muon"})
    finish(Trainer(source, tiny_corpus, tmp_path / "source", CPU))
    trained = load_final(tmp_path / "source", CPU)
    longer = extension(source, 64, tokens=2 * 256)
    trainer = Trainer(longer, tiny_corpus, tmp_path / "longer", CPU, checkpoint_seconds=0, initial=trained.model.state_dict())
    weights = load_file(tmp_path / "source" / "final" / "weights.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.model.state_dict().items())
    assert trainer.optimizers.rows.steps == 0
    assert not any(moment.any() for parts in trainer.optimizers.rows.state.values() for moment in parts.values())
    finish(trainer)
    restored = load_final(tmp_path / "longer", CPU)
    assert restored.trial == longer
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in restored.model.state_dict().items())


def test_a_stopped_extension_takes_up_its_own_weights(tiny_corpus, tmp_path):
    source = make_trial(tiny_corpus, steps=2)
    initial = finish(Trainer(source, tiny_corpus, tmp_path / "source", CPU)).model.state_dict()
    longer = extension(source, 64, tokens=6 * 256, rate=0.01)
    first = Trainer(longer, tiny_corpus, tmp_path / "longer", CPU, checkpoint_seconds=0, initial=initial)
    while first.state.step < 3:
        first.advance(0.001)
    second = Trainer(longer, tiny_corpus, tmp_path / "longer", CPU, initial=initial)
    assert second.state.step == 3
    assert all(torch.equal(tensor, first.model.state_dict()[name]) for name, tensor in second.model.state_dict().items())
