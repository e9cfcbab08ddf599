"""Known answers through the whole pipeline: lm-eval's tasks, local data, scores and their summary."""

import math

import pytest

from engram.errors import UserError

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager  # noqa: F401  # the slow import, before any test is timed

from engram.evaluation.adapter import EngramLM
from engram.evaluation.run import evaluate
from engram.evaluation.tasks import CustomTask


class Knowing(LM):
    """Gives every choice of a question a log-likelihood and writes an answer, from the question's row."""

    def __init__(self, choice, written=""):
        super().__init__()
        self.choice, self.written, self.prompts = choice, written, {}

    def loglikelihood(self, requests, disable_tqdm=False):
        self.prompts.setdefault("loglikelihood", []).extend(request.args for request in requests)
        return [(self.choice(request), False) for request in requests]

    def generate_until(self, requests, disable_tqdm=False):
        self.prompts.setdefault("generate_until", []).extend(request.args for request in requests)
        return [self.written.format(**request.doc) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise AssertionError("no task here scores whole texts")


def per_byte(request):
    return -math.log(100) * len(request.args[1].encode())


ORACLE = {"choice": lambda request: 0.0 if request.idx == request.doc.get("answer") else -9.0, "written": "Hm. So the answer is {target}."}
WRONG = {"choice": lambda request: -9.0 if request.idx == request.doc.get("answer") else 0.0, "written": "So the answer is (Z)."}
UNIFORM = {"choice": per_byte, "written": "no idea"}


def names_of(group):
    """What a group of lm-eval consists of, without loading it."""
    from engram.evaluation.tasks import _manager

    manager = _manager([group])
    found, waiting = [], [group]
    while waiting:
        entry = manager.task_index[waiting.pop()]
        members = entry.tags if entry.kind.name == "TAG" else entry.cfg.get("task", []) if entry.kind.name == "GROUP" else None
        if members is None:
            found.append(entry.name)
        else:
            waiting.extend(members)
    return sorted(found)


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_mmlu, write_bbh):
    """All 57 subjects and 27 tasks, four questions each."""
    folder = tmp_path_factory.mktemp("data")
    write_mmlu(folder / "mmlu", [name.removeprefix("mmlu_") for name in names_of("mmlu")])
    write_bbh(folder / "bbh" / "bbh", [name.removeprefix("bbh_cot_fewshot_") for name in names_of("bbh")], count=4)
    return folder


def by_name(results):
    return {result.task: result for result in results}


def test_one_that_knows_all_answers_scores_1_on_all_of_mmlu_and_bbh(data):
    model = Knowing(**ORACLE)
    results = evaluate(model, ["mmlu", "bbh"], data=data, offline=True)
    found = by_name(results)
    assert len(results) == len(found) == 1 + 4 + 57 + 1 + 27
    assert {result.score for result in results} == {1.0}
    mmlu, bbh = found["mmlu"], found["bbh"]
    assert (mmlu.n, mmlu.n_truncated, mmlu.is_group, mmlu.metric) == (57 * 4, 0, True, "acc")
    assert (mmlu.chance, mmlu.bpb, mmlu.fewshot) == (0.25, 0.0, 5)
    assert (bbh.n, bbh.metric, bbh.filter, bbh.chance, bbh.fewshot) == (27 * 4, "exact_match", "get-answer", 0.5, 3)
    assert bbh.bpb == pytest.approx(9 / math.log(2) / 3)  # "(A)"
    assert [result.task for result in results[:3]] == ["mmlu", "mmlu_stem", "mmlu_abstract_algebra"]
    assert (found["mmlu_anatomy"].group, found["mmlu_stem"].group, mmlu.group) == ("mmlu_stem", "mmlu", "")
    assert (mmlu.version, found["mmlu_anatomy"].version) == ("2", "1.0")
    contexts = [context for context, _ in model.prompts["loglikelihood"] if context.startswith("The following are multiple choice")]
    assert len(contexts) == 57 * 4 * 4
    assert any("about anatomy.\n\nWhat is 0 in anatomy,\nof dev?\nA. anatomy dev 0" in context for context in contexts)
    assert all(context.count("Answer:") == 6 for context in contexts)
    assert all(context.count("step by step") == 4 for context, _ in model.prompts["generate_until"])


@pytest.mark.parametrize(("model", "score", "bpb"), [(UNIFORM, 0.25, math.log2(100) * 2), (WRONG, 0.0, 9 / math.log(2))])
def test_chance_and_0(data, model, score, bpb):
    """Choices that are all as likely score the share of questions whose first choice is right."""
    tasks = ["mmlu_anatomy", "mmlu_philosophy", "bbh_cot_fewshot_navigate"]
    found = by_name(evaluate(Knowing(**model), tasks, data=data, offline=True))
    assert found["mmlu_anatomy"].score == found["mmlu_philosophy"].score == score
    assert found["mmlu_anatomy"].bpb == pytest.approx(bpb)  # one byte: the space before the letter is in the bits and not in the bytes
    assert found["bbh_cot_fewshot_navigate"].score == 0
    assert [item.scores for item in found["mmlu_anatomy"].items] == [{"acc,none": float(model is UNIFORM and i == 0)} for i in range(4)]


def test_items_limit_and_examples(data):
    model = Knowing(**ORACLE)
    result = evaluate(model, ["mmlu_anatomy"], data=data, limit=3, fewshot=2, offline=True)[0]
    assert (result.n, result.fewshot, [item.doc_id for item in result.items]) == (3, 2, [0, 1, 2])
    assert {context.count("Answer:") for context, _ in model.prompts["loglikelihood"]} == {3}
    again = evaluate(Knowing(**WRONG), ["mmlu_anatomy"], data=data, limit=2, fewshot=2, offline=True)[0]
    assert [item.doc_hash for item in again.items] == [item.doc_hash for item in result.items[:2]]
    assert len({item.doc_hash for item in result.items}) == 3
    with pytest.raises(UserError, match="task mmlu_anatomy has 5 examples for its prompts, fewer than 6"):
        evaluate(Knowing(**ORACLE), ["mmlu_anatomy"], data=data, fewshot=6, offline=True)


def test_a_model_of_this_program(data, model, tokenizer):
    """Bits per byte and truncation of a real model's items, in a choice and in an answer that is written."""
    lm = EngramLM(model, tokenizer, 0, 400, precision="fp32")
    tasks = ["mmlu_anatomy", "bbh_cot_fewshot_navigate"]
    found = by_name(evaluate(lm, tasks, data=data, limit=2, offline=True))
    choice, written = found["mmlu_anatomy"], found["bbh_cot_fewshot_navigate"]
    prompts = Knowing(**ORACLE)
    evaluate(prompts, tasks, data=data, limit=2, offline=True)
    context, letter = prompts.prompts["loglikelihood"][0]
    before, after = lm.encode_pairs([(context, letter)])[0]
    assert letter == " A"
    assert len(before) > 400  # so that this item is truncated
    value = lm._loglikelihood_tokens([(None, before, after)])[0][0]
    assert choice.items[0].bpb == pytest.approx(-value / math.log(2), abs=1e-4)
    assert choice.n_truncated == 2
    assert choice.truncated_share == 1
    assert written.n_truncated == 2
    context, _ = prompts.prompts["generate_until"][1]
    value = lm._loglikelihood_tokens([(None, *lm.encode_pairs([(context, "(B)")])[0])])[0][0]
    assert written.items[1].bpb == pytest.approx(-value / math.log(2) / 3, abs=1e-4)
    assert evaluate(lm, tasks[1:], data=data, limit=2, offline=True, answer_bpb=False)[0].bpb is None


def test_tasks_made_of_samples(model, tokenizer):
    def share_found(text, outputs):
        return 100 * sum(output in text for output in outputs) / len(outputs)

    samples = [
        {"input": f"The number is {i}. What is it?", "outputs": [f"{i}", "7"], "answer_prefix": " The number is" + " " * (i % 2)}
        for i in range(4)
    ]
    custom = [CustomTask(f"ruler_{n}_{length}", samples[:n], 9, share_found, group="ruler") for n, length in ((4, 256), (2, 512))]

    class Reader(Knowing):
        def generate_until(self, requests, disable_tqdm=False):
            assert all(request.args[1] == {"until": [], "max_gen_toks": 9, "do_sample": False} for request in requests)
            self.prompts["all"] = [request.args[0] for request in requests]
            return [request.args[0].split("number is ")[1].split(".")[0] for request in requests]

    reader = Reader(per_byte)
    group, first, second = evaluate(reader, [], custom=custom, offline=True)
    assert reader.prompts["all"][:2] == ["The number is 0. What is it? The number is", "The number is 1. What is it? The number is "]
    assert (first.task, first.group, first.score, first.n, first.chance) == ("ruler_4_256", "ruler", 50.0, 4, None)
    assert (group.task, group.is_group, group.score, group.n, group.metric) == ("ruler", True, 50.0, 6, "score")
    assert [item.scores for item in second.items] == [{"score,none": 50.0}] * 2
    assert reader.prompts["loglikelihood"][:2] == [(reader.prompts["all"][0], " 0, 7"), (reader.prompts["all"][1], "1, 7")]
    assert second.bpb == pytest.approx(math.log2(100) * (5 / 4 + 1) / 2)
    result = evaluate(EngramLM(model, tokenizer, 0, 256, precision="fp32"), [], custom=custom[:1], offline=True)[1]
    assert result.n == 4
    with pytest.raises(UserError, match="ruler_4_256 is named twice"):
        evaluate(reader, [], custom=[custom[0], custom[0]])


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        (["mmlu_anatomie"], {}, "there is no task or group mmlu_anatomie; near it: .*mmlu_anatomy"),
        ([], {}, "no task is named"),
        (["mmlu_anatomy"], {"limit": 0}, "limit is 0; it must be 1 or more"),
        (["mmlu_anatomy"], {"fewshot": -1}, "fewshot is -1; it can't be negative"),
        (["mmlu_stem", "mmlu_stem_tasks"], {}, "Duplicate task"),
    ],
)
def test_what_can_t_be_run(data, tasks, options, message):
    with pytest.raises(UserError, match=message):
        evaluate(Knowing(**ORACLE), tasks, data=data, offline=True, **options)
