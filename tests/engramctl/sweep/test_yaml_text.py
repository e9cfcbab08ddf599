"""What people and accidents write as YAML."""

from pathlib import Path

import pytest

from engram.errors import UserError
from engramctl.commands.options.sweep import axis_overrides, field_overrides
from engramctl.sweep.files import load_sweep
from engramctl.sweep.limits import MAX_FILE_BYTES
from engramctl.sweep.spec import sweep_variants
from engramctl.sweep.yaml_text import read_yaml

MINIMAL = "question: what?\nsizes: [1m]\nrhos: [0, 1]\nbudgets: [1e12]\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 12))
EMPTY_VARIANTS = "{" + ", ".join(f"v{i}: {{model.branches: {i}}}" for i in range(40)) + "}"


def load(tmp_path: Path, text: str, **overrides):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_sweep(path, overrides)


def test_keys_are_text_as_written(tmp_path):
    labels = ["on", "off", "yes", "No", "null", "~", "010", "1e3", "1.50", "2001-01-01", "0x1F", "1_000", "12:30"]
    inner = "\n".join(f"    {label}: {{train.learning_rate: {0.01 * (i + 1):.2f}}}" for i, label in enumerate(labels))
    spec = load(tmp_path, f"{MINIMAL}axes:\n  rate:\n{inner}\n")
    assert [variant.name for variant, _ in sweep_variants(spec)] == labels


def test_variants_are_named_as_their_labels_are(tmp_path):
    text = f"{MINIMAL}axes: {{shift: {{on: {{}}, off: {{model.attention.key_shift: off}}}}}}\nvariants: [off]\n"
    ((variant, spec),) = sweep_variants(load(tmp_path, text))
    assert variant.name == "off"
    assert spec.model["attention"]["key_shift"] is False  # a value keeps its type


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "train: {learning_rate: 0.1}\ntrain: {}\n", "line 6: not valid YAML: the key 'train' stands twice, first in line 5"),
        (MINIMAL + 'train:\n  optimizer: {kind: muon}\n  "optimizer": {kind: adamw}\n', "line 7: not valid YAML: the key 'optimizer'"),
        (MINIMAL + "axes:\n  a:\n    on: {}\n    on: {}\n", "line 8: not valid YAML: the key 'on' stands twice, first in line 7"),
        (MINIMAL + "model: {[1]: 2}\n", "line 5: not valid YAML: a key must be text"),
        (MINIMAL + "model: \0\n", "line 5: not valid YAML: the character '\\x00' is not allowed"),
        (MINIMAL + f"model: {'[' * 3000}\n", "line 5: not valid YAML: more than 20 levels"),
        (MINIMAL + "model:" + "".join(f"\n{' ' * i}a:" for i in range(1, 200)), "more than 20 levels"),
        (MINIMAL + f"seeds: {'1' * 5000}\n", "line 5: not valid YAML: a number of more than 100 characters"),
        (MINIMAL + f"train: {{learning_rate: {'1:' * 5000}1}}\n", "a number of more than 100 characters"),
        (MINIMAL + BOMB, "aliases that stand for more than 1,000,000 characters"),
        (MINIMAL + "model: &m {a: *m}\n", "an alias inside what it stands for"),
        (MINIMAL + "model: !!timestamp soon\n", "'soon' is no value of the kind timestamp"),
        (MINIMAL + "model: 2001-02-31\n", "'2001-02-31' is no value of the kind timestamp"),
        (MINIMAL + "model: !!int ''\n", "'' is no value of the kind int"),
        (MINIMAL + "model: !!bool maybe\n", "'maybe' is no value of the kind bool"),
        (MINIMAL + "model: !!python/object:os.system {}\n", "could not determine a constructor"),
        (MINIMAL + f"# {'x' * MAX_FILE_BYTES}\n", "mine.yaml is larger than 256 KiB"),
        (MINIMAL + "seeds: 100000000\n", "seeds: 100,000,000 seeds of 2 points make 200,000,000 trials; at most 10,000 are allowed"),
        (MINIMAL + f"axes: {{{', '.join(f'a{i}: {EMPTY_VARIANTS}' for i in range(9))}}}\n", "combinations; at most 1,000"),
        (MINIMAL + "axes: {a: {x: {model.branches: 2, model: {branches: 4}}}}\n", "model is set twice"),
        (MINIMAL + f"axes: {{? model{'.a' * 3000} : [1]}}\n", "a list of values is for a field below model or train"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert message in str(error.value)
    assert "mine.yaml" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_merged_mappings_may_be_overridden(tmp_path):
    assert read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", "text") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


def test_many_seeds_on_the_command_line_are_refused(tmp_path):
    with pytest.raises(UserError, match="200,000,000 trials"):
        load(tmp_path, MINIMAL, seeds=100_000_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.memory={design: value, design: engram}"], "the key 'design' stands twice"),
        ([f"model.branches={'1' * 5000}"], "a number of more than 100 characters"),
        ([f"model.branches={'[' * 3000}"], "more than 20 levels"),
        (["model.branches=\0"], "not allowed"),
        ([f"model{'.a' * 3000}=1"], "a field below model or train"),
        (["model.branches=2", "model.branches=4"], "model.branches was set before"),
        (["model.memory.design=value", "model.memory={design: engram}"], "model.memory was set before"),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    with pytest.raises(UserError, match=message):
        field_overrides(settings)


def test_keys_of_settings_are_text():
    assert field_overrides(["model.memory={on: 1, 2: off}"]) == {"model": {"memory": {"on": 1, "2": False}}}


def test_an_axis_given_twice_is_refused():
    with pytest.raises(UserError, match=r"--axis train.learning_rate is given twice"):
        axis_overrides(None, None, None, None, None, ["train.learning_rate=0.1", "train.learning_rate=0.2"], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: 012", "line 5: not valid YAML: 012 is a number of base 8 or 60"),
        ("seeds: 1:30", "1:30 is a number of base 8 or 60"),
        ("train: {learning_rate: 1:30}", "1:30 is a number of base 8 or 60"),
        ("seeds: on", "seeds: True is not allowed: a number is expected"),
        ("train: {learning_rate: yes}", "train.learning_rate: True is not allowed: a number is expected"),
        ("train: {optimizer: {kind: muon, beta1: no}}", "train.optimizer.beta1: False is not allowed: a number is expected"),
        ("model: {moe: {top_k: on}}", "model.moe.top_k: True is not allowed"),
        ("corpus: {source: python, max_bytes: on}", "corpus.max_bytes: True is not allowed"),
        ("axes: {train.weight_decay: [on, 0.1]}", "train.weight_decay: True is not allowed"),
    ],
)
def test_what_yaml_takes_for_another_number_is_refused(tmp_path, text, message):
    with pytest.raises(UserError) as refused:
        load(tmp_path, f"{MINIMAL}{text}\n")
    assert message in str(refused.value)


def test_numbers_as_people_write_them_are_read(tmp_path):
    spec = load(tmp_path, f"{MINIMAL}seeds: 1_0\ntrain: {{learning_rate: 1e-3, weight_decay: 0}}\nequal_across_variants: off\n")
    assert (spec.seeds, spec.equal_across_variants) == (10, False)


@pytest.mark.parametrize("rhos", ["[on, 1]", "[0.5, no]"])
def test_a_flag_is_no_rho(tmp_path, rhos):
    with pytest.raises(UserError, match=r"rhos: (True|False) is not allowed: a number is expected"):
        load(tmp_path, MINIMAL.replace("[0, 1]", rhos))


def test_characters_of_two_escapes_are_put_together_and_half_ones_refused():
    assert read_yaml('{"\\ud83d\\ude00": "a\\ud83d\\ude00"}', "it") == {"\U0001f600": "a\U0001f600"}
    for text in ('a: "\\ud800"', '"\\udc00": 1', 'a: "\\ude00\\ud83d"'):
        with pytest.raises(UserError, match=r"^it: not valid YAML: an escape that is half a character$"):
            read_yaml(text, "it")
