import pytest

from engram.config.errors import validated
from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.errors import UserError

TRAIN = {"steps": 1, "batch_size": 1, "seq_len": 8, "learning_rate": 1.0}
MODEL = {
    "vocab_size": 9,
    "width": 8,
    "n_layers": 2,
    "attention": {"kind": "mha", "n_heads": 2},
    "moe": {"n_routed_experts": 3, "top_k": 1, "expert_width": 4, "shared_width": 4},
    "memory": {"design": "engram", "layers": [0], "table_sizes": [11], "n_heads": 2, "memory_dim": 8},
}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (TrainConfig, {"steps": 0}, "here.steps: 0 is not allowed: input should be greater than or equal to 1"),
        (TrainConfig, {"steps": "many"}, "here.steps: 'many' is not allowed: input should be a valid integer"),
        (TrainConfig, {"stops": 1}, "here.stops: no such field"),
        (TrainConfig, {"optimizer": {"kind": "sgd"}}, "here.optimizer.kind: 'sgd' is not allowed: input should be 'adamw', 'muon'"),
        (TrainConfig, {"optimizer": {"kind": "muon", "momentum": 2}}, "here.optimizer.momentum: 2 is not allowed: input should be less"),
        (
            TrainConfig,
            {"schedule": {"kind": "step", "drops": [2]}},
            "here.schedule: drops are [2.0]; they must rise and lie between 0 and 1",
        ),
        (ModelConfig, {"width": None}, "here.width: None is not allowed: input should be a valid integer"),
        (ModelConfig, {"width": 9}, "here.attention.n_heads is 2; width 9 must split into heads of an even size"),
        (ModelConfig, {"memory": {"design": "engram"}}, "here.memory.table_sizes: this field is required"),
        (ModelConfig, {"memory": {"design": "parrot"}}, "here.memory.design: 'parrot' is not allowed: input should be 'engram'"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_path_of_its_field(kind, changes, message):
    values = (TRAIN if kind is TrainConfig else MODEL) | changes
    with pytest.raises(UserError) as caught:
        validated(kind, values, "here")
    line = str(caught.value)
    assert line.startswith(message)
    assert "\n" not in line
    assert "pydantic" not in line


def test_right_values_are_a_config():
    assert validated(TrainConfig, TRAIN, "train") == TrainConfig(**TRAIN)
