"""Tasks with local data against lm-eval by itself: its own task classes, its own way to local files, the same rows and model."""

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from engram.evaluation.adapter import EngramLM
from engram.evaluation.environment import quiet
from engram.evaluation.run import evaluate

TASKS = Path(lm_eval.__file__).parent / "tasks"


class Recording(EngramLM):
    """Keeps what it is asked and what it answers."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def loglikelihood(self, requests, disable_tqdm=False):
        return self._record(requests, super().loglikelihood(requests))

    def generate_until(self, requests, disable_tqdm=False):
        return self._record(requests, super().generate_until(requests))

    def _record(self, requests, results):
        self.seen += [
            (request.task_name, request.doc_id, request.idx, request.args, result)
            for request, result in zip(requests, results, strict=True)
        ]
        return results


@pytest.fixture
def lm(model, tokenizer):
    return Recording(model, tokenizer, 0, 600, precision="fp32")


def lm_evals_own(lm, definition, files, cache, fewshot):
    """lm-eval's definition of a task, told to read JSON files, run by lm-eval."""
    config = load_yaml(TASKS / definition, resolve_func=True)
    config.pop("tag", None)
    config |= {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}, "cache_dir": str(cache)},
    }
    with quiet():
        task = TaskManager(include_defaults=False).load([config])["tasks"][config["task"]]
        task.set_config(key="num_fewshot", value=fewshot)
        task.set_fewshot_seed(seed=1234)
        return lm_eval.evaluate(lm, {"tasks": {config["task"]: task}}, bootstrap_iters=0)


def assert_equal(lm, task, ours, theirs, metrics):
    """The same requests in the same order with the same answers, and the same scores."""
    asked = [seen for seen in lm.seen if seen[0] is not None]  # without the right answers that are scored besides
    assert asked[: len(asked) // 2] == asked[len(asked) // 2 :]
    samples = theirs["samples"][task]
    for metric in metrics:
        name, kind = metric.split(",")
        expected = [sample[name] for sample in samples if sample["filter"] == kind]
        assert [item.scores[metric] for item in ours.items] == expected
        scores = {f"{score.metric},{score.filter}": score.value for score in ours.others} | {f"{ours.metric},{ours.filter}": ours.score}
        assert scores[metric] == pytest.approx(theirs["results"][task][metric])
    assert [item.doc_hash for item in ours.items] == list(dict.fromkeys(sample["doc_hash"] for sample in samples))


def test_mmlu(lm, tmp_path, write_mmlu, write_json_lines):
    write_mmlu(tmp_path / "mmlu", ["anatomy"], tests=12)
    files = {}
    for split in ("dev", "test"):
        with (tmp_path / "mmlu" / split / f"anatomy_{split}.csv").open(newline="") as lines:
            rows = [
                {"question": q, "subject": "anatomy", "choices": choices, "answer": "ABCD".index(letter)}
                for q, *choices, letter in csv.reader(lines)
            ]
        files[split] = write_json_lines(tmp_path / f"{split}.json", rows)
    ours = evaluate(lm, ["mmlu_anatomy"], data=tmp_path, offline=True)[0]
    theirs = lm_evals_own(lm, "mmlu/default/mmlu_anatomy.yaml", files, tmp_path / "cache", fewshot=5)
    assert_equal(lm, "mmlu_anatomy", ours, theirs, ["acc,none"])
    assert len(lm.seen) == 2 * 12 * 4


def test_bbh(lm, tmp_path, write_bbh, write_json_lines):
    write_bbh(tmp_path / "bbh", ["navigate"], count=3)
    rows = json.loads((tmp_path / "bbh" / "navigate.json").read_text())["examples"]
    files = {"test": write_json_lines(tmp_path / "test.json", rows)}
    ours = evaluate(lm, ["bbh_cot_fewshot_navigate"], data=tmp_path, offline=True)[0]
    theirs = lm_evals_own(lm, "bbh/cot_fewshot/navigate.yaml", files, tmp_path / "cache", fewshot=3)
    assert_equal(lm, "bbh_cot_fewshot_navigate", ours, theirs, ["exact_match,get-answer"])
    assert sum(seen[0] is not None for seen in lm.seen) == 2 * 3


def test_arc_with_examples_that_are_drawn(lm, tmp_path, write_json_lines):
    def rows(split, count):
        choices = [{"text": [f"{split} {i} {letter} choice" for letter in "abc"], "label": ["1", "2", "3"]} for i in range(count)]
        return [
            {"id": f"{i}", "question": f"Which of {split} {i}?", "choices": one, "answerKey": "123"[i % 3]} for i, one in enumerate(choices)
        ]

    files = {
        split: write_json_lines(tmp_path / "arc" / f"ARC-Easy_{split}.jsonl", rows(split, 6)) for split in ("train", "validation", "test")
    }
    ours = evaluate(lm, ["arc_easy"], data=tmp_path, offline=True, fewshot=2)[0]
    theirs = lm_evals_own(lm, "arc/arc_easy.yaml", files, tmp_path / "cache", fewshot=2)
    assert_equal(lm, "arc_easy", ours, theirs, ["acc,none", "acc_norm,none"])
    assert ours.chance == pytest.approx(1 / 3)
    gold = next(seen for seen in lm.seen if seen[1] == 4 and seen[2] == 1)
    assert gold[3][1] == " test 4 b choice"
    assert ours.items[4].bpb == pytest.approx(-gold[4][0] / 0.6931471805599453 / len("test 4 b choice"))
