from pathlib import Path

import pytest

from engram.errors import UserError
from engram.evaluation import task_files as task_files_module
from engram.evaluation.task_files import mistakes_of_tasks, task_files, task_label


def test_aliases_are_followed_once(tmp_path):
    """Written out they would be 9^30 values, and the second file has no end at all."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    (tmp_path / "bomb.yaml").write_text(f"task: bomb\n{bomb}dataset_kwargs: {{data_files: *a29}}\n")
    assert task_files(tmp_path / "bomb.yaml") == [tmp_path / "bomb.yaml"]
    (tmp_path / "endless.yaml").write_text("task: endless\ndataset_kwargs: &a [*a]\n")
    assert task_files(tmp_path / "endless.yaml") == [tmp_path / "endless.yaml"]


def test_data_and_functions_come_in_the_order_of_the_file(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "helper.py"):
        (tmp_path / name).touch()
    text = f"task: own\nprocess: !function helper.go\ndataset_kwargs: {{data_files: [{tmp_path}/b.jsonl, {tmp_path}/a.jsonl]}}\n"
    (tmp_path / "own.yaml").write_text(text)
    assert [path.name for path in task_files(tmp_path / "own.yaml")] == ["own.yaml", "helper.py", "b.jsonl", "a.jsonl"]
    assert task_label(tmp_path / "own.yaml") == "own"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"- a\n", b"\xff", b"a: [1", b"\0"])
def test_what_is_no_task_is_one_line(tmp_path, content):
    Path(tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"own\.yaml") as mistake:
        task_files(tmp_path / "own.yaml")
    assert "\n" not in str(mistake.value)


def raising(place):
    """A function that fails, as if it stood in another file."""
    found = {}
    exec(compile("def fail(): raise KeyError('choices')", str(place), "exec"), found)
    return found["fail"]


def test_what_a_task_gets_wrong_is_one_line(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("task: own")
    with pytest.raises(UserError, match=rf"^{file} can't be scored: KeyError: 'choices'$"), mistakes_of_tasks(["mmlu", str(file)]):
        raising("/site-packages/lm_eval/api/task.py")()


def test_what_our_own_code_gets_wrong_stays_what_it_is(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("task: own")
    with pytest.raises(KeyError), mistakes_of_tasks([str(file)]):
        raising(Path(task_files_module.__file__).with_name("adapter.py"))()
    with pytest.raises(KeyError), mistakes_of_tasks(["mmlu"]):
        raising("/site-packages/lm_eval/api/task.py")()
    with pytest.raises(UserError, match="said"), mistakes_of_tasks([str(file)]):
        raise UserError("said")
