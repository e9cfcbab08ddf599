"""RULER through the real pipeline: known answers, the floor of an echo, and what is left out."""

import pytest

from engram.errors import UserError

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

from lm_eval.api.model import LM

from engram.evaluation.ruler import samples, sources
from engram.evaluation.ruler.suite import Sources, ruler_suite
from engram.evaluation.run import evaluate
from engram.tokenizer.bpe import train_bpe

OWN = ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt", "cwe", "fwe")


class Writer(LM):
    """Writes what a function makes of an item's row."""

    def __init__(self, write):
        super().__init__()
        self.write = write

    def generate_until(self, requests, disable_tqdm=False):
        return [self.write(request.doc) for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-1.0, False) for _ in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise AssertionError("no task here scores whole texts")


@pytest.fixture(scope="module")
def tokenizer(encode):
    """One that knows the words of these texts: with a coarser one vt's solved example is too long."""
    texts = [sample.prompt for name in OWN for sample in samples(name, 4096, encode, 2, seed=7)]
    return train_bpe(texts, 1500)


@pytest.fixture(scope="module")
def suite(essay, squad, tokenizer):
    names = (*OWN, "niah_single_2", "qa_1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "split_sentences", lambda text: text.split(". "))
        return ruler_suite(names, 4096, tokenizer, 3, Sources(haystack=(essay,), squad=squad), offline=True)


@pytest.mark.parametrize(
    ("write", "score"),
    [(lambda doc: f"They are: {', '.join(doc['outputs'])}.", 1.0), (lambda doc: "nothing of the kind", 0.0), (lambda doc: "", 0.0)],
)
def test_one_that_knows_and_one_that_does_not(suite, write, score):
    tasks = evaluate(Writer(write), [], custom=suite.tasks, offline=True)
    assert [(task.task, task.score, task.group) for task in tasks] == [(name, score, "") for name in (*OWN, "niah_single_2", "qa_1")]
    assert all(task.bpb > 0 for task in tasks)


def test_the_floor_is_the_score_of_an_echo(suite, tokenizer):
    room = {task.name: task.tokens_to_generate for task in suite.tasks}

    def echo(name):
        return lambda doc: tokenizer.decode(tokenizer.encode(doc["prompt"], add_special_tokens=False).ids[-room[name] :])

    for task in suite.tasks:
        result = evaluate(Writer(echo(task.name)), [], custom=[task], offline=True)[0]
        assert result.score == pytest.approx(suite.floors[task.name]), task.name


def test_without_texts_from_outside(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(tmp_path))
    suite = ruler_suite((), 4096, tokenizer, 1, Sources(), offline=True)
    assert tuple(task.name for task in suite.tasks) == OWN
    group, *tasks = evaluate(Writer(lambda doc: doc["outputs"][0]), [], custom=suite.tasks, offline=True)
    assert (group.task, group.n, group.is_group) == ("ruler", len(OWN), True)
    assert group.score == pytest.approx(sum(task.score for task in tasks) / len(OWN))
    assert suite.left_out.keys() == {
        "niah_single_2",
        "niah_single_3",
        "niah_multikey_1",
        "niah_multivalue",
        "niah_multiquery",
        "qa_1",
        "qa_2",
    }
    assert "give files of text" in suite.left_out["niah_multiquery"]
    assert "give its file" in suite.left_out["qa_2"]
    with pytest.raises(UserError, match=r"SQuAD 2.0 is not at .* \(offline\); give its file"):
        ruler_suite(["qa_1"], 4096, tokenizer, 1, Sources(), offline=True)


def test_lengths_at_which_tasks_do_not_exist(tokenizer):
    short = ruler_suite((), 512, tokenizer, 1, Sources(), offline=True)
    assert "cwe" in short.left_out
    assert "cwe does not fit in 512 tokens; with this tokenizer and seed the smallest length found to work is" in short.left_out["cwe"]
    with pytest.raises(UserError, match="niah_single_1 does not fit in 256 tokens"):
        ruler_suite(["niah_single_1"], 256, tokenizer, 1, Sources(), offline=True)
