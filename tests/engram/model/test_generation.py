import pytest
import torch

from engram import kernels
from engram.config.model import ModelConfig
from engram.model import Transformer
from engram.model.generation import Cache, generate, next_logits, pad_left

MEMORIES = {
    "none": None,
    "engram": {"design": "engram", "layers": [0, 2], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12},
    "engram, one gate": {"design": "engram", "layers": [1], "table_sizes": [40], "n_heads": 2, "memory_dim": 4, "branch_gates": False},
    "engram-v4.1": {"design": "engram-v4.1", "layers": [0, 2], "table_sizes": [40, 50, 60], "n_heads": 2, "memory_dim": 12},
    "over-encoding": {"design": "over-encoding", "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12},
    "value": {"design": "value", "layers": [0, 2], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12},
}
ATTENTIONS = {
    "mha": {"kind": "mha", "n_heads": 3},
    "mla": {"kind": "mla", "n_heads": 3, "head_dim": 8, "rope_dim": 4, "value_dim": 6, "kv_rank": 10, "query_rank": 12},
    "mha, yarn": {"kind": "mha", "n_heads": 3, "key_shift": False, "rope": {"yarn": {"original_length": 16}}},
    "mla, no shift": {"kind": "mla", "n_heads": 3, "head_dim": 8, "rope_dim": 4, "value_dim": 6, "kv_rank": 10, "key_shift": False},
}
VOCABULARY, PAD = 97, 3


def build(memory: str, attention: str, branches: int) -> Transformer:
    config = ModelConfig.model_validate(
        {
            "vocab_size": VOCABULARY,
            "width": 24,
            "n_layers": 3,
            "branches": branches,
            "attention": ATTENTIONS[attention],
            "moe": {"n_routed_experts": 7, "top_k": 2, "expert_width": 8, "shared_width": 10},
            "memory": MEMORIES[memory],
            "table_init_std": 1.0,
        }
    )
    model = Transformer(config, torch.arange(VOCABULARY) // 2, PAD)
    model.initialise(1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith((".conv", ".gate", ".base", ".scale")):  # what starts at a constant must take part too
            torch.nn.init.normal_(parameter, generator=generator)
    return model.eval()


def combinations() -> list[tuple[str, str, int]]:
    found = []
    for memory in MEMORIES:
        for attention in ATTENTIONS:
            for branches in (1, 4):
                if not (memory == "engram, one gate" and branches == 1):
                    found.append((memory, attention, branches))
    return found


@pytest.mark.parametrize(("memory", "attention", "branches"), combinations())
@torch.no_grad()
def test_cached_generation_gives_the_logits_of_a_whole_pass(memory, attention, branches):
    """Prompts of one token and of more tokens than any training sequence had, in one padded batch, then token by token."""
    model = build(memory, attention, branches)
    generator = torch.Generator().manual_seed(3)
    sequences = [torch.randint(0, VOCABULARY, (n,), generator=generator) for n in (1 + 4, 40 + 4, 7 + 4)]
    expected = [model.logits(sequence[None])[0] for sequence in sequences]
    tokens, padding = pad_left([sequence[:-4].tolist() for sequence in sequences], PAD, torch.device("cpu"))
    cache = Cache(padding)
    for new in range(5):
        got = next_logits(model, tokens, cache)
        for b, logits in enumerate(expected):
            assert torch.allclose(got[b], logits[len(logits) - 5 + new], atol=1e-5), (b, new)
        if new < 4:
            tokens = torch.stack([sequence[len(sequence) - 4 + new] for sequence in sequences])[:, None]


@torch.no_grad()
def test_several_tokens_at_a_time_after_a_cache():
    model = build("engram", "mla", 4)
    tokens = torch.randint(0, VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(0))
    cache, parts = Cache(), []
    for part in tokens.split([1, 13, 2, 14], dim=1):
        parts.append(model.logits(part, cache))
        cache.advance(part.shape[1])
    assert torch.allclose(torch.cat(parts, dim=1), model.logits(tokens), atol=1e-5)


@pytest.mark.parametrize(("memory", "attention", "branches"), combinations())
@torch.no_grad()
def test_one_beginning_for_several_continuations(memory, attention, branches):
    """Beginnings of different lengths, each with continuations of different lengths padded on the right, and one token after them."""
    model = build(memory, attention, branches)
    generator = torch.Generator().manual_seed(4)
    beginnings = [torch.randint(0, VOCABULARY, (n,), generator=generator) for n in (1, 23)]
    continuations = [(row, torch.randint(0, VOCABULARY, (n,), generator=generator)) for row, n in ((1, 9), (0, 2), (1, 1), (0, 30))]
    beginning, padding = pad_left([tokens.tolist() for tokens in beginnings], PAD, torch.device("cpu"))
    shared = Cache(padding)
    model(beginning, shared)
    shared.advance(beginning.shape[1])
    tokens = torch.nn.utils.rnn.pad_sequence([tokens[:-1] for _, tokens in continuations], batch_first=True, padding_value=5)
    real = torch.tensor([len(tokens) - 1 for _, tokens in continuations])
    for _ in range(2):  # the shared cache stays as it was
        cache = shared.branch(torch.tensor([row for row, _ in continuations]))
        logits = model.logits(tokens, cache)
        cache.advance(tokens.shape[1], real)
        last = next_logits(model, torch.stack([tokens[-1:] for _, tokens in continuations]), cache)
        kept = cache.branch(torch.tensor([3, 1]))
        after = next_logits(model, torch.tensor([[7], [7]]), kept)
        for b, (row, continuation) in enumerate(continuations):
            expected = model.logits(torch.cat([beginnings[row], continuation, torch.tensor([7])])[None])[0]
            start = len(beginnings[row])
            assert torch.allclose(logits[b, : real[b]], expected[start : start + real[b]], atol=1e-5)
            assert torch.allclose(last[b], expected[-2], atol=1e-5)
            if b in (3, 1):
                assert torch.allclose(after[(3, 1).index(b)], expected[-1], atol=1e-5)


@pytest.mark.parametrize(("memory", "attention"), [("none", "mha"), ("engram", "mha"), ("engram", "mla")])
@pytest.mark.usefixtures("one_thread")
@torch.no_grad()
def test_a_cache_with_the_compiled_kernels(memory, attention, monkeypatch):
    """The fused kernels know nothing of a past: they may take whole sequences only."""
    monkeypatch.setattr(kernels, "_library", kernels._library)
    if reason := kernels.load():
        pytest.skip(reason)
    model = build(memory, attention, 4)
    tokens = torch.randint(0, VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(0))
    expected = model.logits(tokens)
    for padding in (None, torch.zeros(2, dtype=torch.int64)):
        cache, parts = Cache(padding), []
        for part in tokens.split([12, 7, 1], dim=1):
            parts.append(model.logits(part, cache))
            cache.advance(part.shape[1])
        assert torch.allclose(torch.cat(parts, dim=1), expected, atol=1e-5)


@torch.no_grad()
def test_pads_on_the_right_of_the_first_tokens():
    model = build("engram", "mla", 4)
    sequences = [torch.randint(0, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n)) for n in (12, 1, 7)]
    tokens = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=9)
    cache = Cache()
    model(tokens, cache)
    cache.advance(tokens.shape[1], torch.tensor([len(sequence) for sequence in sequences]))
    got = next_logits(model, torch.tensor([[1], [2], [3]]), cache)
    for b, sequence in enumerate(sequences):
        expected = model.logits(torch.cat([sequence, torch.tensor([b + 1])])[None])[0, -1]
        assert torch.allclose(got[b], expected, atol=1e-5)


def test_a_prompt_continues_alone_as_in_a_batch():
    model = build("engram", "mha", 4)
    prompts = [[5], list(range(20)), [9, 8, 7]]
    together = generate(model, prompts, 12, end_id=PAD)
    assert together == [generate(model, [prompt], 12, end_id=PAD)[0] for prompt in prompts]


def test_greedy_takes_the_most_likely_token_and_stops_at_the_end():
    model = build("value", "mha", 1)
    prompt = [4, 5, 6]
    with torch.no_grad():
        first = int(model.logits(torch.tensor([prompt]))[0, -1].argmax())
    new = generate(model, [prompt], 6, end_id=VOCABULARY + 1)[0]
    assert new[0] == first
    assert len(new) == 6
    stop = new[2]
    assert generate(model, [prompt], 6, end_id=stop)[0] == new[: new.index(stop)]


def test_sampling_follows_the_seed_and_the_temperature():
    model = build("engram", "mha", 1)
    one, again, other = (generate(model, [[1, 2]], 20, PAD, temperature=1.0, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one != other
    for tiny in (1e-4, 1e-300):
        assert generate(model, [[1, 2]], 20, PAD, temperature=tiny) == generate(model, [[1, 2]], 20, PAD)


@pytest.mark.parametrize(("prompts", "temperature", "message"), [([[]], 0.0, "at least one token"), ([[1]], -1.0, "can't be negative")])
def test_what_can_t_be_continued(prompts, temperature, message):
    with pytest.raises(ValueError, match=message):
        generate(build("none", "mha", 1), prompts, 3, PAD, temperature=temperature)


def test_a_layers_view_of_a_cache_remembers_too():
    """Compiled kernels take whole sequences only, and ask a layer's history whether it is one."""
    assert not Cache().is_empty
    assert not Cache().at(0).is_empty
