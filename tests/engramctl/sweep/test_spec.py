from pathlib import Path

import pytest

from engram.errors import UserError
from engram.scaling.accounting import count_parameters
from engram.scaling.ladder import LADDER
from engram.scaling.recipe import DEFAULT_RECIPE
from engramctl.sweep.build import expand
from engramctl.sweep.files import find_sweep, load_sweep
from engramctl.sweep.spec import wall_seconds

MINIMAL = """
question: what?
sizes: [1m]
rhos: [0, 1]
budgets: [1e12]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def trials(spec, budgets=(1e12,), corpus="c" * 64):
    return expand(spec, budgets, 512, corpus, "t" * 64)


@pytest.mark.parametrize("name", ["allocation", "smoke"])
def test_shipped_sweeps_are_valid_and_explain_every_key(name):
    path = find_sweep(name)
    spec = load_sweep(path, {})
    assert spec.question.endswith("?")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert "?" in lines[0]
    for number, line in enumerate(lines):
        key, colon, value = line.strip().partition(":")
        if colon and value.strip() and not line.strip().startswith("#"):
            assert lines[number - 1].strip().startswith("#"), f"{name}: {key} is not explained"


def test_overrides_reach_the_config(tmp_path):
    text = (
        MINIMAL
        + "model: {attention: {key_shift: false}, moe: {balance_step: 0.01}, memory: {gate: signed_sqrt, max_ngram: 4, memory_dim: 72}}\n"
    )
    text += "train: {optimizer: {kind: muon, momentum: 0.9}, schedule: {kind: step, drops: [0.5]}}\n"
    trial = trials(load_sweep(write(tmp_path, text), {}))[0]
    assert not trial.model.attention.key_shift
    assert trial.model.moe.balance_step == 0.01
    assert trial.model.memory.gate == "signed_sqrt"
    assert trial.model.memory.max_ngram == 4
    assert trial.train.optimizer.momentum == 0.9
    assert trial.train.schedule.drops == (0.5,)


@pytest.mark.parametrize("design", ["engram", "engram-v4.1", "over-encoding", "value"])
@pytest.mark.parametrize("kind", ["mha", "mla"])
def test_designs_and_attentions_are_chosen_by_name(tmp_path, design, kind):
    text = MINIMAL + f"model: {{branches: 2, attention: {{kind: {kind}}}, memory: {{design: {design}}}}}\n"
    zero, one = (t.model for t in trials(load_sweep(write(tmp_path, text), {})))
    assert zero.memory.design == design
    assert zero.attention.kind == one.attention.kind == kind
    assert one.memory is None
    for column in ("p_total", "p_active"):
        a, b = (getattr(count_parameters(model), column) for model in (zero, one))
        assert abs(a / b - 1) < 0.005


def test_another_choice_drops_the_settings_of_the_old_one(tmp_path):
    path = write(tmp_path, MINIMAL + "model: {branches: 2, memory: {design: engram, gate: signed_sqrt, memory_dim: 32}}\n")
    (other, _), (same, _) = (
        trials(load_sweep(path, {"model": {"memory": memory}})) for memory in ({"design": "over-encoding"}, {"gate": "plain"})
    )
    assert (other.model.memory.design, other.model.memory.memory_dim, other.model.branches) == ("over-encoding", 64, 2)
    assert (same.model.memory.gate, same.model.memory.memory_dim) == ("plain", 32)


def test_no_memory_is_a_design(tmp_path):
    text = MINIMAL.replace("[0, 1]", "[1]") + "model: {memory: {design: none}}\n"
    assert [t.model.memory for t in trials(load_sweep(write(tmp_path, text), {}))] == [None]


def test_the_rate_follows_the_optimiser_unless_it_is_given(tmp_path):
    path = write(tmp_path, MINIMAL + "train: {optimizer: {kind: muon}}\n")
    assert trials(load_sweep(path, {}))[0].train.learning_rate == DEFAULT_RECIPE.learning_rate(LADDER["1m"], "muon")
    path.write_text(MINIMAL + "train: {optimizer: {kind: muon}, learning_rate: 0.5}\n")
    assert trials(load_sweep(path, {}))[0].train.learning_rate == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "colour: red\n", "mine.yaml: colour: no such field"),
        (MINIMAL + "train: {beta3: 1}\n", "train.beta3: no such field"),
        (MINIMAL + "train: {optimizer: {beta2: 1.5}}\n", "train.optimizer.beta2: 1.5 is not allowed: input should be less than 1"),
        (MINIMAL + "train: {optimizer: {kind: adam}}\n", "optimizer kind 'adam' is unknown; there are adamw, muon"),
        (MINIMAL + "train: {optimizer: muon}\n", "train.optimizer: 'muon' is not allowed: fields of it are expected"),
        (MINIMAL + "train: {optimizer: {kind: adamw, momentum: 0.9}}\n", "train.optimizer.momentum: no such field"),
        (MINIMAL + "train: {schedule: {kind: linear}}\n", "train.schedule.kind: 'linear' is not allowed: input should be 'wsd', 'cosine'"),
        (MINIMAL + "train: {schedule: {kind: step, drops: [0.9, 0.8]}}\n", "train.schedule: drops are [0.9, 0.8]; they must rise"),
        (MINIMAL + "train: {steps: 5}\n", "train.steps can't be set"),
        (MINIMAL + "model: {moe: {top_k: many}}\n", "model.moe.top_k: 'many' is not allowed"),
        (MINIMAL + "model: {memory: {gate: tanh}}\n", "model.memory.gate: 'tanh' is not allowed: input should be 'plain'"),
        (MINIMAL + "model: {memory: {design: ngram}}\n", "memory design 'ngram' is unknown; there are engram, engram-v4.1, over-encoding"),
        (MINIMAL + "model: {memory: {design: value, gate: plain}}\n", "model.memory.gate: no such field"),
        (MINIMAL + "model: {memory: engram}\n", "model.memory: 'engram' is not allowed: fields of it are expected"),
        (MINIMAL + "model: {memory: {table_sizes: [5, 5]}}\n", "model.memory.table_sizes can't be set: rho decides it"),
        (MINIMAL + "model: {memory: {max_ngram: 1}}\n", "model.memory.max_ngram: 1 is not allowed: a whole number from 2 to 8"),
        (MINIMAL + "model: {memory: {layers: [7]}}\n", "model.memory.layers are [7]; with n_layers = 2 they go from 0 to 1"),
        (MINIMAL + "model: {memory: {branch_gates: false}}\n", "memory.branch_gates is false; it has a meaning only where branches"),
        (MINIMAL + "model: {memory: {design: none}}\n", "with model.memory.design none there is no memory"),
        (MINIMAL + "model: {attention: {kind: gqa}}\n", "attention kind 'gqa' is unknown; there are mha, mla"),
        (MINIMAL + "model: {attention: {kv_rank: 8}}\n", "model.attention.kv_rank: no such field"),
        (MINIMAL + "model: {branches: 0}\n", "model.branches: 0 is not allowed"),
        (MINIMAL.replace("[1m]", "[engram-27b]"), "engram-27b is a model of the paper"),
        (MINIMAL + "corpus: {source: web}\n", "corpus.source: corpus 'web' is unknown"),
        (MINIMAL + "corpus: {max_bytes: lots}\n", "'lots' is not a size"),
        (MINIMAL.replace("[0, 1]", "[0, 1.5]"), "mine.yaml: rhos: rho is 1.5; it must be between 0"),
        (MINIMAL.replace("[0, 1]", "[]"), "rhos: "),
        (MINIMAL.replace("[1m]", "[2m]"), "size '2m' is unknown; the ladder has 1m, 3m"),
        (MINIMAL.replace("1e12", "soon"), "'soon' is neither FLOPs"),
        (MINIMAL.replace("[1e12]", "[5m, 1e12]"), "budget 5m is a wall time; it must stand alone"),
        (MINIMAL.replace("question: what?\n", ""), "question: this field is required"),
        ("- a\n- b\n", "must hold a mapping"),
        ("question: [\n", "mine.yaml, line 2: not valid YAML"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        load_sweep(write(tmp_path, text), {})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "mine.yaml" in str(error.value)


def test_a_mistaken_option_does_not_blame_the_file(tmp_path):
    with pytest.raises(UserError, match=r"^rhos: rho is 2"):
        load_sweep(write(tmp_path, MINIMAL), {"rhos": [2.0]})


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"question: \xff\n")
    with pytest.raises(UserError, match=r"mine\.yaml is not UTF-8 \(byte 10\)"):
        load_sweep(path, {})


def test_unknown_sweep_names_the_ones_there_are():
    with pytest.raises(UserError, match="sweep 'alocation' is unknown; there are allocation, components, designs"):
        find_sweep("alocation")
    with pytest.raises(UserError, match="does not exist"):
        find_sweep("some/where.yaml")


def test_wall_times_and_flops():
    assert wall_seconds("20m") == 1200
    assert wall_seconds("1h30m") == 5400
    assert wall_seconds("1e14") is None


def test_a_value_is_the_same_however_it_is_written(tmp_path):
    text = MINIMAL.replace("[0, 1]", "[-0.0, 0, 1, 1.0]").replace("[1e12]", "[1e12, 1.0e12, 1000000000000, 3e12]")
    spec = load_sweep(write(tmp_path, text), {})
    assert [str(rho) for rho in spec.rhos] == ["0.0", "1.0"]
    assert spec.budgets == ("1e12", "3e12")
    plain = load_sweep(write(tmp_path, MINIMAL), {})
    assert {trial.id for trial in trials(plain)} <= {trial.id for trial in trials(spec)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[0, 1]", "[0.75, 0.750000001, 1]", "rhos 0.75 and 0.750000001 are closer than 1e-06"),
        ("rhos: [0, 1]", "slots: [1e300]", "slots are 1e+300; at most 1,000,000,000,000 are allowed"),
        (
            "question",
            "axes: {x: {'a, b': {}, a: {}}, y: {c: {}, 'b, c': {}}}\nquestion",
            "2 combinations of their labels read 'a, b, c'",
        ),
    ],
)
def test_what_could_not_be_told_apart_or_built_is_refused(tmp_path, old, new, message):
    with pytest.raises(UserError) as refused:
        load_sweep(write(tmp_path, MINIMAL.replace(old, new)), {})
    assert message in str(refused.value)
