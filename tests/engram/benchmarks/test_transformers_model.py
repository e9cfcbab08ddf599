import sys
import time
from itertools import repeat

import pytest
import torch

from engram.benchmarks import transformers_model
from engram.benchmarks.compare import same_experts
from engram.benchmarks.shapes import STUDY
from engram.benchmarks.transformers_model import deepseek_config, fastest_step, require_transformers, training_step
from engram.errors import UserError
from engram.scaling.accounting import count_parameters

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def batches(setup):
    train = setup.train
    return repeat(torch.randint(setup.corpus.vocab_size, (train.batch_size, train.seq_len + 1)))


def config_of(setup):
    return deepseek_config(same_experts(setup.sparse(0.5), setup.size.shared_width), setup.train.seq_len, setup.size.shared_experts)


def test_transformers_gets_the_same_experts(setup):
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3ForCausalLM

    ours = same_experts(setup.sparse(0.5), setup.size.shared_width)
    theirs = DeepseekV3ForCausalLM(config_of(setup))
    numbers = {
        part: sum(p.numel() for name, p in theirs.named_parameters() if part in name)
        for part in ("mlp.experts", "mlp.gate.", "shared_experts", "self_attn")
    }
    counts = count_parameters(ours)
    assert numbers["mlp.experts"] == counts.routed_experts
    assert numbers["mlp.gate."] == counts.router
    assert numbers["shared_experts"] == counts.shared_experts
    assert len(theirs.model.layers) == ours.n_layers
    assert all(layer.mlp.gate.top_k == ours.moe.top_k for layer in theirs.model.layers)


def test_heads_of_the_study(setup):
    config = config_of(type(setup)(STUDY, "muon", setup.corpus, setup.device))
    assert (config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim, config.kv_lora_rank) == (32, 16, 48, 24)


def test_a_variant_does_not_change_the_others(setup, batches):
    """Transformers writes the implementation into the config that it is given."""
    config = config_of(setup)
    before = config.to_dict(), config._experts_implementation
    for experts in ("eager", "grouped_mm"):
        training_step(config, experts, "fp32", batches, CPU)()
    assert (config.to_dict(), config._experts_implementation) == before


def test_the_fastest_variant_that_runs(setup, batches, monkeypatch):
    monkeypatch.setattr(transformers_model, "EXPERTS", ("telepathy", "grouped_mm"))
    turn, variants = fastest_step(config_of(setup), setup.train, batches, CPU, 0.0)
    assert [v.name for v in variants if v.problem] == ["telepathy fp32", "telepathy bf16", "telepathy bf16 autocast"]
    assert all(v.step_s > 0 for v in variants if not v.problem)
    assert turn(0.0) > 0
    monkeypatch.setattr(transformers_model, "EXPERTS", ("telepathy",))
    with pytest.raises(RuntimeError, match="runs in no way here"):
        fastest_step(config_of(setup), setup.train, batches, CPU, 0.0)


def test_weights_copied_for_every_token_must_fit(setup, batches, monkeypatch):
    monkeypatch.setattr(transformers_model, "EXPERTS", ("eager", "batched_mm"))
    monkeypatch.setattr(transformers_model, "DTYPES", {"fp32": torch.float32})
    monkeypatch.setattr(transformers_model, "free_bytes", lambda device: 1_000_000)
    _, (eager, batched) = fastest_step(config_of(setup), setup.train, batches, CPU, 0.0)
    assert eager.problem is None
    assert "copied for every token" in batched.problem


def test_transformers_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="needs transformers, which is not installed: python -m pip install transformers"):
        require_transformers()


@pytest.mark.parametrize(
    ("compile_s", "problems"),
    [(60.0, [None] * 3), (0.1, ["not compiled within 0.1 s", "no time was left to compile it", "no time was left to compile it"])],
)
def test_on_a_gpu_they_are_compiled_the_fastest_first(setup, batches, monkeypatch, compile_s, problems):
    speeds = {"grouped_mm": 3.0, "eager": 1.0, "batched_mm": 2.0}

    def step(config, experts, dtype, batches, device, compiled):
        def run():
            if compiled:
                time.sleep(0.2)
            return speeds[experts] * (1.0 if dtype == "bf16" else 1.5) * (0.5 if compiled else 1.0)

        return run

    monkeypatch.setattr(transformers_model, "training_step", step)
    monkeypatch.setattr(transformers_model, "calls", lambda run, device: lambda seconds: run())
    monkeypatch.setattr(transformers_model, "free_bytes", lambda device: 10**15)
    monkeypatch.setattr(transformers_model, "give_back", lambda device: None)
    told = []
    turn, probed = fastest_step(config_of(setup), setup.train, batches, torch.device("cuda"), 0.0, told.append, compile_s)
    assert told == probed
    compiled = [variant for variant in probed if variant.compiled]
    assert [variant.name for variant in compiled] == [f"{name} bf16 compiled" for name in ("eager", "batched_mm", "grouped_mm")]
    assert [variant.problem for variant in compiled] == problems
    assert turn(0.0) == (0.5 if compile_s == 60.0 else 1.0)
