"""Real questions of MMLU and BIG-Bench Hard, where they are beside the repository; skipped elsewhere."""

import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

from lm_eval.api.model import LM

from engram.benchmarks.prefix_sharing import Asked
from engram.evaluation.adapter import EngramLM
from engram.evaluation.passes import score
from engram.evaluation.run import evaluate

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not (DATA / "mmlu").is_dir(), reason="no benchmark data beside the repository")


@pytest.fixture(scope="module")
def prompts():
    """200 pairs of context and continuation: a question with its four choices of each of 50 subjects."""
    asked = Asked()
    evaluate(asked, ["mmlu"], data=DATA, limit=1, fewshot=1, offline=True, answer_bpb=False)
    assert len(asked.requests) == 57 * 4
    return asked.requests[:200]


def test_log_likelihoods_of_200_prompts_equal_a_direct_forward_pass(model, tokenizer, prompts):
    lm = EngramLM(model, tokenizer, 0, 4096, precision="fp32")
    sequences = [lm.scored(before, after) for before, after in lm.encode_pairs(prompts)]
    assert len({len(sequence.tokens) for sequence in sequences}) > 50, "lengths are mixed"
    direct = []
    with torch.no_grad():
        for sequence in sequences:
            logits = model.logits(torch.from_numpy(sequence.tokens.astype("int64"))[None])[0, sequence.first :].double()
            targets = torch.from_numpy(sequence.targets.astype("int64"))
            direct.append(logits.log_softmax(-1)[torch.arange(len(targets)), targets].sum().item())
    for share in (False, True):
        together = [value for value, _ in score(lm.passes, sequences, share)]
        assert together == pytest.approx(direct, abs=1e-4)
        alone = [score(lm.passes, [sequence], share)[0][0] for sequence in sequences[::10]]
        assert alone == pytest.approx(direct[::10], abs=1e-4)


class Knowing(LM):
    """Knows the rows of the questions."""

    def __init__(self, choice, written):
        super().__init__()
        self.choice, self.written = choice, written

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(self.choice(request), False) for request in requests]

    def generate_until(self, requests, disable_tqdm=False):
        return [self.written(request.doc) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise AssertionError("no task here scores whole texts")


def per_byte(request):
    return -math.log(100) * len(request.args[1].encode())


def is_right(request):
    return "answer" in request.doc and "ABCD".index(request.args[1].strip()) == request.doc["answer"]


@pytest.mark.parametrize(
    ("choice", "written", "mmlu", "bbh"),
    [
        (lambda r: 0.0 if "answer" in r.doc and is_right(r) else -9.0, lambda doc: f"So the answer is {doc['target']}.", 1.0, 1.0),
        (lambda r: -9.0 if "answer" in r.doc and is_right(r) else 0.0, lambda doc: "So the answer is (Z).", 0.0, 0.0),
        (per_byte, lambda doc: "", None, 0.0),
    ],
)
def test_known_answers(choice, written, mmlu, bbh):
    results = evaluate(Knowing(choice, written), ["mmlu", "bbh"], data=DATA, limit=10, offline=True, answer_bpb=False)
    found = {result.task: result for result in results}
    assert found["bbh"].score == bbh
    assert found["bbh"].chance == pytest.approx(0.26, abs=0.02)
    if mmlu is None:
        # All choices are as likely, and the first one is taken: as often right as A is.
        assert found["mmlu"].score == pytest.approx(0.25, abs=0.05)
    else:
        assert found["mmlu"].score == mmlu
