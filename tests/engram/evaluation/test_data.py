import json
import os
import sys

import pytest

from engram.errors import UserError

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

from engram.evaluation import environment
from engram.evaluation.data import LocalData, check_cot_prompt
from engram.evaluation.tasks import load_tasks

MMLU = {"task": "mmlu_anatomy", "dataset_path": "cais/mmlu", "dataset_name": "anatomy", "test_split": "test", "fewshot_split": "dev"}
BBH = {"task": "bbh_cot_fewshot_navigate", "dataset_path": "SaylorTwift/bbh", "dataset_name": "navigate", "test_split": "test"}
ARC = {
    "task": "arc_easy", "dataset_path": "allenai/ai2_arc", "dataset_name": "ARC-Easy",
    "training_split": "train", "validation_split": "validation", "test_split": "test",
}  # fmt: skip


def test_mmlu(tmp_path, write_mmlu):
    write_mmlu(tmp_path / "mmlu", ["anatomy"])
    for folder in (tmp_path, tmp_path / "mmlu"):
        found = LocalData(folder).splits(MMLU, 5)
        assert sorted(found) == ["dev", "test"]
        assert found["test"][1] == {
            "question": "What is 1 in anatomy,\nof test? ",
            "subject": "anatomy",
            "choices": [f'anatomy test 1, "{letter}"' for letter in "abcd"],
            "answer": 1,
        }
    validation = {**MMLU, "validation_split": "validation"}
    assert len(LocalData(tmp_path).splits(validation, 5)["validation"]) == 4
    (tmp_path / "mmlu" / "dev" / "anatomy_dev.csv").unlink()
    assert len(LocalData(tmp_path).splits(MMLU, 0)["dev"]) == 0
    with pytest.raises(UserError, match=r"task mmlu_anatomy: its 5 examples need .*mmlu/dev/anatomy_dev.csv, which is not there"):
        LocalData(tmp_path).splits(MMLU, 5)
    with pytest.raises(UserError, match=r"its questions need .*mmlu/test/virology_test.csv"):
        LocalData(tmp_path).splits({**MMLU, "dataset_name": "virology"}, 5)


@pytest.mark.parametrize("line", ["question,1,2,3,4,E", "question,1,2,3,A", ""])
def test_a_row_that_is_no_question(tmp_path, write_mmlu, line):
    write_mmlu(tmp_path, ["anatomy"])
    (tmp_path / "test" / "anatomy_test.csv").write_text(f"question,1,2,3,4,A\n{line}\n" if line else "")
    with pytest.raises(UserError, match=r"row 2 is not question, A, B, C, D and the letter" if line else "is empty"):
        LocalData(tmp_path).splits(MMLU, 0)


def test_bbh(tmp_path, write_bbh):
    write_bbh(tmp_path / "bbh" / "bbh", ["navigate"])
    for folder in (tmp_path, tmp_path / "bbh", tmp_path / "bbh" / "bbh"):
        found = LocalData(folder).splits(BBH, 3)
        assert found["test"][0] == {"input": "navigate number 0\nOptions:\n(A) this\n(B) that", "target": "(A)"}
    (tmp_path / "bbh" / "bbh" / "navigate.json").write_text('{"examples": [{"input": "x"}]}')
    with pytest.raises(UserError, match=r"navigate.json is not a BIG-Bench Hard file"):
        LocalData(tmp_path).splits(BBH, 3)


def test_json_lines(tmp_path, write_json_lines):
    rows = [{"id": str(i), "question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"} for i in range(3)]
    assert LocalData(tmp_path).splits(ARC, 0) is None
    file = write_json_lines(tmp_path / "arc" / "ARC-Easy_test.jsonl", rows)
    found = LocalData(tmp_path).splits(ARC, 0)
    assert (list(found["test"]), len(found["validation"]), len(found["train"])) == (rows, 0, 0)
    with pytest.raises(UserError, match=r"its 2 examples need .*ARC-Easy_train.jsonl"):
        LocalData(tmp_path).splits(ARC, 2)
    write_json_lines(tmp_path / "arc_easy" / "test.jsonl", rows[:1])  # the task's own name comes first
    assert len(LocalData(tmp_path).splits(ARC, 0)["test"]) == 1
    with pytest.raises(UserError, match=r"arc_easy/train.jsonl"):
        LocalData(tmp_path).splits(ARC, 2)
    (tmp_path / "arc_easy" / "test.jsonl").write_text('{"a": 1}\n[1]\n')
    with pytest.raises(UserError, match="line 2 is not a JSON object"):
        LocalData(tmp_path).splits(ARC, 0)
    (tmp_path / "arc_easy" / "test.jsonl").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="it is not UTF-8"):
        LocalData(tmp_path).splits(ARC, 0)
    with pytest.raises(UserError, match="is not a folder"):
        LocalData(file)


def test_the_examples_of_a_cot_prompt_have_to_be_lm_evals(tmp_path):
    config = {
        "task": "bbh_cot_fewshot_navigate",
        "description": "Say where you are.\n\n",
        "doc_to_text": "Q: {{input}}\nA: Let's think step by step.\n",
        "fewshot_config": {"samples": [{"input": "Turn.", "target": "We turn. So the answer is No."}]},
    }
    shown = "Say where you are.\n\nQ: Turn.\nA: Let's think step by step.{}We turn. So the answer is No.\n"
    for between in ("\n", " "):
        (tmp_path / "navigate.txt").write_text(f"canary\n-----\n{shown.format(between)}")
        check_cot_prompt(tmp_path / "navigate.txt", config)
    (tmp_path / "navigate.txt").write_text(f"canary\n-----\n{shown.format(between)}".replace("No", "Yes"))
    check_cot_prompt(tmp_path / "navigate.txt", {**config, "fewshot_config": None})
    with pytest.raises(UserError, match="has other examples than lm-eval's task bbh_cot_fewshot_navigate"):
        check_cot_prompt(tmp_path / "navigate.txt", config)


def test_rows_in_two_places_are_refused(tmp_path, write_json_lines):
    write_json_lines(tmp_path / "a" / "own_test.jsonl", [{"q": "1"}])
    write_json_lines(tmp_path / "b" / "own_test.jsonl", [{"q": "2"}])
    with pytest.raises(UserError, match=r"the rows of own are in .*a/own_test.jsonl and in .*b/own_test.jsonl; keep one"):
        LocalData(tmp_path).splits({"task": "own", "test_split": "test"}, 0)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "own_test.jsonl").write_text('{"q": "1"}\n{"q": "2", "q": "3"}\n')
    with pytest.raises(UserError, match=r"own_test.jsonl: line 2: the key 'q' stands twice"):
        LocalData(tmp_path).splits({"task": "own", "test_split": "test"}, 0)


def test_data_that_is_nowhere(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = dict(os.environ)
    with environment.quiet(), pytest.raises(UserError) as caught:
        load_tasks(["arc_easy"], [], data=tmp_path, fewshot=None, without_network=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "task arc_easy",
        "allenai/ai2_arc/ARC-Easy",
        f"not in {tmp_path}",
        f"cache {tmp_path / 'cache'}",
        "(offline)",
        "give a folder `data`",
    ):
        assert part in message
    assert dict(os.environ) == before
    assert not datasets.config.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE")


def test_offline_is_told_to_what_is_imported_and_taken_back():
    import huggingface_hub.constants as hub

    before = (hub.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE"))
    with environment.offline(True):
        assert hub.HF_HUB_OFFLINE
        assert os.environ["HF_DATASETS_OFFLINE"] == "1"
    assert (hub.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")) == before


def test_without_lm_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"pip install 'engramctl\[eval\]'"):
        environment.require_lm_eval()


def test_json_dump_of_a_row_stays_one_line(tmp_path, write_json_lines):
    file = write_json_lines(tmp_path / "x_test.jsonl", [{"text": "a\nb\r\u2028c"}])
    assert LocalData(tmp_path).splits({"task": "x", "test_split": "test"}, 0)["test"]["text"] == [json.loads(file.read_text())["text"]]


OWN = """
task: own
dataset_path: json
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["a", "b"]
doc_to_target: answer
"""


WITH_PASSAGE = OWN.replace("{{q", "{% if passage %}{{passage}} {% endif %}{{q")


def own_task(folder, rows, write_json_lines, text=OWN):
    """The user's own task on rows of a file in the form of JSON lines."""
    (folder / "own.yaml").write_text(text)
    write_json_lines(folder / "own_test.jsonl", rows)
    with environment.quiet():
        return load_tasks([str(folder / "own.yaml")], [], data=folder, fewshot=None, without_network=True)["tasks"]["own"]


def test_the_order_of_rows_and_their_keys_do_not_matter(tmp_path, write_json_lines):
    rows = [{"question": "q1", "answer": 0}, {"question": "q2", "answer": 1, "passage": "Long ago."}, {"question": "q3", "answer": 1}]
    for order in (rows, rows[::-1], [rows[1], rows[0], rows[2]]):
        task = own_task(tmp_path, order, write_json_lines, WITH_PASSAGE)
        assert sorted(task.doc_to_text(doc) for doc in task.test_docs()) == ["Long ago. q2", "q1", "q3"]


@pytest.mark.parametrize("values", [[1, "one"], ["one", 1], [True, 2], [[1], 2], [2**70, 1.5], [{"a": 1}, {"a": "x"}], ["\ud800", "x"]])
def test_mixed_types_matter_only_in_a_column_that_the_task_reads(tmp_path, write_json_lines, values):
    rows = [{"question": "q", "answer": 0, "extra": None}, *({"question": "q", "answer": 1, "extra": value} for value in values)]
    assert len(own_task(tmp_path, rows, write_json_lines).test_docs()) == 3
    with pytest.raises(UserError, match=r"own_test\.jsonl: line [23]: 'extra' is .* another type") as caught:
        own_task(tmp_path, rows, write_json_lines, WITH_PASSAGE.replace("passage", "extra"))
    assert "\n" not in str(caught.value)


def test_mixed_types_in_a_column_that_a_function_reads(tmp_path, write_json_lines):
    (tmp_path / "own_functions.py").write_text("def text(doc):\n    return doc['extra']\n")
    rows = [{"question": "q", "answer": 0, "extra": "x"}, {"question": "q", "answer": 0, "extra": 3}]
    with pytest.raises(UserError, match=r"line 2: 'extra' is 3"):
        own_task(tmp_path, rows, write_json_lines, OWN + "doc_to_text: !function own_functions.text\n")


@pytest.mark.parametrize("row", [{"question": "q"}, {"question": "q", "answer": 2}, {"question": "q", "answer": -1}, {"answer": None}])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_without_a_valid_answer_is_named(tmp_path, write_json_lines, row, place):
    rows = [{"question": "q", "answer": 0}, {"question": "q", "answer": 1}]
    with pytest.raises(UserError, match=rf"own_test\.jsonl: line {place + 1} ") as caught:
        own_task(tmp_path, [*rows[:place], row, *rows[place:]], write_json_lines)
    assert "\n" not in str(caught.value)
    assert "is not here" not in str(caught.value)


@pytest.mark.parametrize("place", [0, 1])
def test_an_answer_key_that_is_no_label(tmp_path, write_json_lines, place):
    row = {"id": "1", "question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
    rows = [row, row]
    rows[place] = {**row, "answerKey": "E"}
    write_json_lines(tmp_path / "arc_easy_test.jsonl", rows)
    with environment.quiet(), pytest.raises(UserError, match=rf"arc_easy_test\.jsonl: line {place + 1} .*task arc_easy"):
        load_tasks(["arc_easy"], [], data=tmp_path, fewshot=None, without_network=True)


def test_a_task_that_scores_in_its_own_way_needs_no_answer_of_a_known_form(tmp_path, write_json_lines):
    (tmp_path / "own_scores.py").write_text("def score(doc, results):\n    return {'acc': 1.0}\n")
    text = f"{OWN}process_results: !function own_scores.score\n"
    assert (
        len(own_task(tmp_path, [{"question": "q", "answer": 0}, {"question": "q", "answer": 7}], write_json_lines, text).test_docs()) == 2
    )


def test_a_written_answer_may_not_be_missing(tmp_path, write_json_lines):
    text = OWN.replace("multiple_choice", "generate_until").replace("doc_to_target: answer", 'doc_to_target: "{{answer}}."')
    text = text.replace('doc_to_choice: ["a", "b"]\n', "")
    rows = [{"question": "q", "answer": "None"}, {"question": "q"}]
    with pytest.raises(UserError, match=r"line 2 has no answer that task own can use: its 'answer' is empty"):
        own_task(tmp_path, rows, write_json_lines, text)
