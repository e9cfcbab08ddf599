import json

import pytest

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.scaling.accounting import count_parameters, table_rows
from engramctl.results.rows.trials import planned_columns
from engramctl.sweep.axes import combinations, normalised
from engramctl.sweep.build import expand
from engramctl.sweep.files import find_sweep, load_sweep
from engramctl.sweep.spec import sweep_variants

MINIMAL = "question: what?\nsizes: [1m]\nbudgets: [1e12]\n"


def sweep(tmp_path, text, overrides=None):
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL + text)
    return load_sweep(path, overrides or {})


def trials(spec):
    return expand(spec, [1e12], 512, "c" * 64, "t" * 64)


def test_every_combination_of_the_axes_is_a_variant():
    axes = normalised({"train.learning_rate": [0.01, 0.02], "design": {"engram": None, "value": {"model.memory.design": "value"}}})
    variants = combinations(axes)
    assert [v.name for v in variants] == [
        "learning_rate=0.01, engram", "learning_rate=0.01, value", "learning_rate=0.02, engram", "learning_rate=0.02, value",
    ]  # fmt: skip
    assert variants[3].changes == {"train": {"learning_rate": 0.02}, "model": {"memory": {"design": "value"}}}
    assert [v.name for v in combinations({})] == [""]


def test_variants_become_trials_with_their_labels_in_the_row(tmp_path):
    spec = sweep(tmp_path, "rhos: [0.4]\nseeds: 2\naxes: {design: {engram: {}, none: {model.memory.design: none, rhos: [1]}}}\n")
    found = trials(spec)
    assert [(t.variant, t.rho, t.seed) for t in found] == [("engram", 0.4, 0), ("engram", 0.4, 1), ("none", 1.0, 0), ("none", 1.0, 1)]
    assert found[2].model.memory is None
    columns = planned_columns(found[0])
    assert columns["variant"] == "engram"
    assert json.loads(columns["axes"]) == {"design": "engram"}


def test_a_label_is_a_name_and_no_part_of_the_id(tmp_path):
    plain = trials(sweep(tmp_path, "rhos: [0.4]\n"))[0]
    named = trials(sweep(tmp_path, "rhos: [0.4]\naxes: {design: {mine: {}}}\n"))[0]
    assert named.id == plain.id
    assert named.variant == "mine"
    assert TrialConfig.model_validate_json(named.model_dump_json()) == named


def test_a_field_can_be_an_axis_also_from_the_command_line(tmp_path):
    spec = sweep(tmp_path, "rhos: [0.4]\n", {"axes": {"model.memory.layers": [[0], [0, 1]]}})
    assert [t.model.memory.layers for t in trials(spec)] == [(0,), (0, 1)]
    assert [t.variant for t in trials(spec)] == ["layers=[0]", "layers=[0, 1]"]


def test_variants_can_be_chosen_by_name(tmp_path):
    text = "rhos: [0.4]\naxes: {design: {engram: {}, value: {model.memory.design: value}}}\n"
    assert [t.variant for t in trials(sweep(tmp_path, text, {"variants": ["value"]}))] == ["value"]
    with pytest.raises(UserError, match="there is no 'vlaue'; there are engram, value"):
        sweep(tmp_path, text, {"variants": ["vlaue"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rhos: [1]\naxes: {x: [1, 2]}\n", "axes: x: a list of values is for a field below model or train"),
        ("rhos: [1]\naxes: {x: {a: {modle.width: 1}}}\n", "axes: x.a.modle.width: no such field"),
        ("rhos: [1]\naxes: {x: {a: 3}}\n", "axes: x.a: 3 is not allowed"),
        ("rhos: [1]\naxes: {x: {}}\n", "axes: x: a list of values or a mapping"),
        ("rhos: [1]\naxes: 3\n", "axes: 3 is not allowed"),
        ("rhos: [0.5]\naxes: {x: {a: {model.memory.gate: tanh}}}\n", "axes, variant a: model.memory.gate: 'tanh' is not allowed"),
        ("rhos: [0.5]\naxes: {train.learning_rate: [0.1, fast]}\n", "axes, variant learning_rate=fast: train.learning_rate: 'fast' is not"),
        ("rhos: [0.5]\naxes: {x: {a: {model.memory.design: none}}}\n", "axes, variant a: rhos: with model.memory.design none"),
        ("rhos: [1]\naxes: {train.steps: [3]}\n", "train.steps can't be set"),
        ("rhos: [1]\naxes: {x: {a: {train.learning_rate: 1}}, train.learning_rate: [2]}\n", "is set by another axis too"),
        ("rhos: [1]\nvariants: [a]\n", "there is no 'a'; this sweep has no axes"),
        ("rhos: [1]\nslots: [0]\n", "rhos: both rhos and slots are given"),
        ("slots: [-1]\n", "slots: slots are -1"),
        ("slots: [10.5]\n", "slots"),
    ],
)
def test_a_mistake_in_an_axis_is_named_in_one_line(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        sweep(tmp_path, text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_two_names_for_one_trial_are_refused(tmp_path):
    spec = sweep(tmp_path, "rhos: [1]\naxes: {design: {engram: {}, value: {model.memory.design: value}}}\n")
    with pytest.raises(UserError, match="variants 'engram' and 'value' are one and the same trial at rho = 1"):
        trials(spec)


def test_variants_that_are_not_of_equal_size_are_refused_unless_the_sweep_says_so(tmp_path):
    text = "rhos: [0.5]\naxes: {model.branches: [1, 4]}\n"
    with pytest.raises(UserError, match=r"p_\w+ differs by .* between size 1m, variant branches=1 at rho = 0.5"):
        trials(sweep(tmp_path, text))
    assert len(trials(sweep(tmp_path, text + "equal_across_variants: false\n"))) == 2


def test_slots_are_added_to_a_fixed_backbone(tmp_path):
    spec = sweep(tmp_path, "slots: [0, 1e3, 1e5]\nmodel: {moe: {n_routed_experts: 20}}\n")
    none, few, many = (t.model for t in trials(spec))
    assert none.memory is None
    assert few.memory
    assert many.memory
    assert {m.moe.n_routed_experts for m in (none, few, many)} == {20}
    assert abs(table_rows(few.memory) - 1e3) < 0.1 * 1e3
    assert abs(table_rows(many.memory) - 1e5) < 0.01 * 1e5
    active = [count_parameters(m).p_active for m in (none, few, many)]
    assert max(active) / min(active) < 1.005
    assert [t.rho for t in trials(spec)] == [count_parameters(m).rho for m in (none, few, many)]
    assert len({t.train.steps for t in trials(spec)}) == 1


@pytest.mark.parametrize("name", ["allocation", "components", "designs", "gpu", "gpu-minutes", "laptop", "layers", "memory", "smoke"])
def test_every_shipped_sweep_expands(name):
    spec = load_sweep(find_sweep(name), {})
    found = expand(spec, [1e15], spec.corpus.vocab_size, "c" * 64, "t" * 64)
    points = sum(len(sub.rhos or sub.slots) for _, sub in sweep_variants(spec))
    assert len(found) == len({t.id for t in found}) == len(spec.sizes) * points
