import pytest

from engram.errors import UserError
from engram.evaluation.json_files import check_json_files

ROW = '{"question": "is it?", "answer": 1}\n'


def check(file):
    check_json_files({"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": [str(file)]}}})


@pytest.mark.parametrize(
    ("content", "line"),
    [("null\n" + ROW, 1), (ROW + "\n[1]\n", 3), ("1\n", 1), (ROW + '{"question": \n', 2), ("[1, null]", 1), ("[" * 100_000, 1)],
)
def test_what_is_no_row_is_named(tmp_path, content, line):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=rf"^{file}: line {line} is not a JSON object$"):
        check(file)


@pytest.mark.parametrize("content", [ROW * 2, "\n" + ROW, f"[{ROW}, {ROW}]", '{\n "data": [1]\n}', ""])
def test_what_datasets_reads_is_left_to_it(tmp_path, content):
    (tmp_path / "rows.json").write_text(content)
    check(tmp_path / "*.json")


def test_other_sources_are_not_looked_at(tmp_path):
    (tmp_path / "rows.gz").write_bytes(b"\x1f\x8b\x08\xff")
    check(tmp_path / "rows.gz")
    check(tmp_path / "missing.json")
    check("https://example.org/rows.json")
    for config in ({"dataset_path": "csv"}, {"dataset_path": "json"}, {"dataset_path": "json", "dataset_kwargs": 3}):
        check_json_files(config)


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    check(tmp_path / "pipe")
