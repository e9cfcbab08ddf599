import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.memory.hashing import NgramHash


def make_hash(vocab=50, pad=0):
    return NgramHash(layers=(1, 4), table_sizes=(31, 37), n_heads=3, compressed_vocab_size=vocab, pad_id=pad, seed=5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 49), min_size=1, max_size=12), st.integers(0, 11), st.integers(1, 49))
def test_an_index_depends_on_the_last_n_tokens_only(ids, position, change):
    tokens = torch.tensor([ids])
    hashing = make_hash()
    before = hashing(tokens)
    position %= len(ids)
    changed = tokens.clone()
    changed[0, position] = (changed[0, position] + change) % 50
    differs = (hashing(changed) != before).flatten(3).any(0).any(-1)[0]  # [T]
    assert not differs[:position].any()
    assert not differs[position + 3 :].any()


def test_indices_stay_inside_their_tables():
    hashing = make_hash()
    indices = hashing(torch.randint(0, 50, (4, 100)))
    assert indices.shape == (2, 4, 100, 6)
    assert (indices >= 0).all()
    assert (indices < hashing.head_sizes[:, None, None, :]).all()


def test_no_overflow_with_the_largest_vocabulary():
    vocab = 2**31 - 1
    hashing = make_hash(vocab)
    ids = torch.full((1, 5), vocab - 1)
    exact = int(ids[0, 0]) * int(hashing.multipliers[0, 0])
    assert exact < 2**63
    assert (hashing(ids) >= 0).all()


def test_positions_before_the_start_are_the_pad_id():
    with_pad = make_hash(pad=7)
    first = with_pad(torch.tensor([[3, 9]]))
    later = with_pad(torch.tensor([[7, 7, 3, 9]]))
    assert torch.equal(first, later[:, :, 2:])
