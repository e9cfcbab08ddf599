import random
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from engram import kernels
from engram.errors import UserError
from engram.model.generation import generate

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from engram.benchmarks.prefix_sharing import measure_prefix_sharing
from engram.evaluation.adapter import EngramLM

END = 0


@pytest.fixture(scope="module")
def lm(model, tokenizer):
    return EngramLM(model, tokenizer, END, 512, precision="fp32")


def pairs_of_tasks(tokenizer, count=200):
    """Like a benchmark: beginnings that many share, questions of different lengths, some choices for each."""
    rng = random.Random(1)
    words = [tokenizer.decode([i]).strip() for i in range(257, tokenizer.get_vocab_size())]

    def text(low, high):
        return " ".join(rng.choices([word for word in words if word], k=rng.randint(low, high)))

    pairs = [("", "alone"), (" ", "after a space"), ("one context", " and"), ("one context", " and more"), ("one context ", "spaced")]
    while len(pairs) < count:
        beginning = text(20, 60)
        for _ in range(4):
            question = f"{beginning}\n{text(1, 25)}\nAnswer:"
            pairs += [(question, f" {choice}") for choice in ("A", "B", text(1, 4), text(5, 9))]
    return pairs[:count]


@torch.no_grad()
def direct(model, before, after):
    """Log-likelihood and greediness by one pass over the whole sequence alone."""
    log_probabilities = F.log_softmax(model.logits(torch.tensor([[*before, *after][:-1]]))[0, len(before) - 1 :].double(), -1)
    targets = torch.tensor(after)
    return float(log_probabilities[torch.arange(len(after)), targets].sum()), bool((log_probabilities.argmax(-1) == targets).all())


def likelihoods(lm, pairs, task=None):
    return lm.loglikelihood([Instance("loglikelihood", {}, pair, 0, (task, number, 1)) for number, pair in enumerate(pairs)])


def generated(lm, prompts, task=None, **settings):
    return lm.generate_until([Instance("generate_until", {}, (prompt, settings), 0, (task, i, 1)) for i, prompt in enumerate(prompts)])


@pytest.fixture(scope="module", params=["mha", "mla"])
def scored_directly(request, build_model, tokenizer):
    """A model, 200 pairs, and each one's log-likelihood and greediness."""
    model, pairs = build_model(tokenizer.get_vocab_size(), attention=request.param), pairs_of_tasks(tokenizer)
    encoded = EngramLM(model, tokenizer, END, 512, precision="fp32").encode_pairs(pairs)
    return model, pairs, [direct(model, before, after) for before, after in encoded]


def test_likelihoods_with_the_compiled_kernels(scored_directly, tokenizer, monkeypatch):
    monkeypatch.setattr(kernels, "_library", kernels._library)
    if reason := kernels.load():
        pytest.skip(reason)
    model, pairs, expected = scored_directly
    got = likelihoods(EngramLM(model, tokenizer, END, 512, precision="fp32"), pairs)
    assert [value for value, _ in got] == pytest.approx([value for value, _ in expected], abs=1e-4)
    same = [pair for pair in pairs if pair[0] == pairs[7][0]]  # one beginning, without a pad
    one = dict(zip(pairs, expected, strict=True))
    got = likelihoods(EngramLM(model, tokenizer, END, 512, precision="fp32"), same)
    assert [value for value, _ in got] == pytest.approx([one[pair][0] for pair in same], abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"share_prefixes": False}, {"batch_tokens": 150}, {"cache_bytes": 50_000}])
def test_likelihoods_are_those_of_a_direct_pass(scored_directly, tokenizer, options):
    model, pairs, expected = scored_directly
    lm = EngramLM(model, tokenizer, END, 512, precision="fp32", **options)
    got = likelihoods(lm, pairs)
    assert [value for value, _ in got] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]
    assert likelihoods(lm, pairs[50:51])[0][0] == pytest.approx(expected[50][0], abs=1e-4)


def test_one_of_the_continuations_is_greedy_and_others_are_not(lm, model):
    first = lm.tok_encode("one two")
    chosen = int(model.logits(torch.tensor([first]))[0, -1].argmax())
    requests = [(None, first, [chosen]), (None, first, [chosen + 1])]
    assert [greedy for _, greedy in lm._loglikelihood_tokens(requests)] == [True, False]


def test_contexts_and_continuations_are_split_as_lm_eval_splits_them(lm, tokenizer):
    """Boundaries inside a token, spaces on either side, empty contexts: the code of lm-eval's own Hugging Face models."""
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    reference = SimpleNamespace(backend="causal", tok_encode=lambda text, **_: fast.encode(text, add_special_tokens=False))
    words = [tokenizer.decode([i]) for i in range(257, tokenizer.get_vocab_size())]
    pairs = [(word[:cut], word[cut:]) for word in words for cut in range(1, len(word)) if word[:cut].strip()]
    pairs += [("Q: what? \n", "A"), ("Q: what?", " A"), ("Q: what?\t", " A"), ("a\n\n", "\nb"), ("é", "é"), ("x", "日本")]
    straddling = 0
    for (context, continuation), (before, after) in zip(pairs, lm.encode_pairs(pairs), strict=True):
        expected = TemplateLM._encode_pair(reference, context, continuation)
        if expected[1]:
            assert (before, after) == expected
        else:  # lm-eval's models fail here
            whole = lm.tok_encode(context + continuation)
            assert (before, after) == ([END, *whole][:-1], whole[-1:])
        straddling += before + after != lm.tok_encode(context + continuation)
    assert straddling > 20
    assert lm.encode_pairs([("", "word"), (" ", "word")]) == [([END], lm.tok_encode("word")), ([END], lm.tok_encode(" word"))]


def test_what_does_not_fit_loses_its_beginning_and_is_counted(model, tokenizer):
    lm = EngramLM(model, tokenizer, END, 16, precision="fp32")
    long = "a list of many words that are more than sixteen tokens long in any tokenizer of four hundred"
    ids = lm.tok_encode(long)
    assert len(ids) > 17
    pairs = [("short", " A"), (long, " A"), (long, " B"), ("x", f" {long}")]
    got = likelihoods(lm, pairs, "task")
    after = lm.tok_encode(" A")
    assert got[1][0] == pytest.approx(direct(model, [*ids, *after][-17 : -len(after)], after)[0], abs=1e-4)
    assert lm.truncated == {"task": {1, 2, 3}}
    exact = lm.tok_encode(long)[:16]
    lm._loglikelihood_tokens([(None, exact, [5])])
    generated(lm, ["short", long], "other", until=[], max_gen_toks=4)
    assert lm.truncated == {"task": {1, 2, 3}, "other": {1}}


def test_rolling_likelihood_scores_every_token_once(model, tokenizer):
    lm = EngramLM(model, tokenizer, END, 16, precision="fp32")
    texts = ["", "short", "a list of many words that are more than sixteen tokens long in any tokenizer of four hundred tokens " * 2]
    got = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts])
    assert got[0] == 0
    assert got[1] == pytest.approx(direct(model, [END], lm.tok_encode("short"))[0], abs=1e-4)
    ids = [END, *lm.tok_encode(texts[2])]
    expected, done = direct(model, ids[:1], ids[1:17])[0], 17
    while done < len(ids):
        end = min(done + 16, len(ids))
        expected += direct(model, ids[end - 17 : done], ids[done:end])[0]
        done = end
    assert got[2] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("attention", ["mha", "mla"])
@pytest.mark.parametrize("options", [{}, {"share_prefixes": False}, {"batch_tokens": 60}])
def test_answers_are_those_of_greedy_generation(build_model, tokenizer, attention, options):
    model = build_model(tokenizer.get_vocab_size(), attention=attention)
    lm = EngramLM(model, tokenizer, END, 512, precision="fp32", **options)
    beginning = "three examples that all of the prompts begin with, " * 4
    prompts = [beginning + rest for rest in ("one", "two and more of it", "three", "three")] + ["", "by itself"]
    ids = [lm.tok_encode(prompt) or [END] for prompt in prompts]
    expected = [tokenizer.decode(new) for new in generate(model, ids, 24, END)]
    assert generated(lm, prompts, until=[], max_gen_toks=24) == expected
    assert generated(lm, prompts[1:2], until=[], max_gen_toks=24) == expected[1:2]


def test_an_answer_ends_before_a_stop_string(lm):
    prompts = ["one", "two words", "three words more"]
    whole = generated(lm, prompts, until=[], max_gen_toks=40)
    for start in (0, 3, 11):
        stop = whole[1][start : start + 5]
        cut = generated(lm, prompts, until=[stop, "never to be seen in any text"], max_gen_toks=40)
        assert cut == [text.split(stop)[0] for text in whole]
    assert generated(lm, prompts, until=whole[0][4:6], max_gen_toks=40)[0] == whole[0].split(whole[0][4:6])[0]


def test_room_for_an_answer(model, tokenizer):
    """A prompt keeps half of the length at least, and an answer ends where the length does."""
    lm = EngramLM(model, tokenizer, END, 32, precision="fp32")
    prompt = "a list of words, twenty tokens long"
    ids = lm.tok_encode(prompt)
    assert 16 < len(ids) < 32
    answer = generated(lm, [prompt], until=[], max_gen_toks=1000)[0]
    assert answer == tokenizer.decode(generate(model, [ids[-16:]], 16, END)[0])
    short = generated(lm, [prompt], until=[], max_gen_toks=2)[0]
    assert short == tokenizer.decode(generate(model, [ids[-30:]], 2, END)[0])


def test_sampling_and_what_is_not_known_of_it(lm):
    one, two = (generated(lm, ["some words"] * 2, until=[], max_gen_toks=12, do_sample=True, temperature=1.5) for _ in range(2))
    assert one == two
    assert one[0] != one[1]
    greedy = generated(lm, ["some words"], until=[], max_gen_toks=12)
    assert generated(lm, ["some words"], until=[], max_gen_toks=12, do_sample=False, temperature=0.7) == greedy
    with pytest.raises(UserError, match="samples with top_p"):
        generated(lm, ["some words"], until=[], max_gen_toks=12, do_sample=True, temperature=1.0, top_p=0.9)


def test_a_restored_model_reads_what_it_was_trained_on(model, tokenizer):
    train = SimpleNamespace(seq_len=48, precision="fp32")
    restored = SimpleNamespace(model=model, tokenizer=tokenizer, trial=SimpleNamespace(train=train), end_of_text_id=END)
    assert EngramLM.from_restored(restored).max_length == 48
    lm = EngramLM.from_restored(restored, max_length=20, precision="bf16")
    assert (lm.max_length, lm.precision) == (20, "bf16")
    assert likelihoods(lm, [("one", " two")])[0][0] == pytest.approx(
        likelihoods(EngramLM.from_restored(restored), [("one", " two")])[0][0], rel=0.05
    )
    with pytest.raises(UserError, match="max_length is 1"):
        EngramLM.from_restored(restored, max_length=1)


def test_progress_and_what_sharing_saves(model, tokenizer):
    seen = []
    lm = EngramLM(model, tokenizer, END, 512, precision="fp32", on_progress=lambda *args: seen.append(args))
    pairs = pairs_of_tasks(tokenizer)
    likelihoods(lm, pairs)
    assert seen[-1] == ("loglikelihood", len(pairs), len(pairs))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    rounded = EngramLM(model, tokenizer, END, 512, precision="bf16")
    assert measure_prefix_sharing(rounded, pairs).largest_difference < 1
    assert len(generated(rounded, [pair[0] for pair in pairs[-6:]], until=[], max_gen_toks=5)) == 6
    saved = measure_prefix_sharing(lm, pairs)
    assert saved.largest_difference < 1e-4
    assert saved.fewer_tokens > 4
    assert saved.tokens_alone == sum(len(before) + len(after) - 1 for before, after in lm.encode_pairs(pairs))
