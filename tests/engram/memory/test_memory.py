import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.memory.fusion import Fusion, ShortConv
from engram.memory.hashing import NgramHash
from engram.memory.tables import EmbeddingTables


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


def test_tables_read_the_rows_and_give_gradients_by_row():
    tables = EmbeddingTables([5, 7], row_dim=3)
    torch.nn.init.normal_(tables.weight)
    indices = torch.tensor([[[0, 6], [4, 6]]])  # [1, T, H]
    tables.train()
    out = tables(indices)
    expected = torch.cat([tables.weight[[0, 4]], tables.weight[[11, 11]]], dim=-1)
    assert torch.equal(out[0], expected)
    out.sum().backward()
    ((rows, leaf),) = tables.touched
    assert rows.tolist() == [0, 4, 11]
    assert leaf.grad[:, 0].tolist() == [1.0, 1.0, 2.0]
    assert tables.weight.grad is None
    tables.clear()
    assert torch.equal(tables.eval()(indices), out)
    assert tables.touched == []


def test_convolution_looks_back_only_and_starts_as_nothing():
    conv = ShortConv(branches=2, width=4, kernel=4, dilation=3)
    x = torch.randn(1, 20, 2, 4)
    assert conv(x).abs().max() == 0
    torch.nn.init.normal_(conv.weight)
    changed = x.clone()
    changed[:, 10] += 1
    differs = (conv(x) != conv(changed)).flatten(2).any(-1)[0].nonzero().flatten()
    assert differs.tolist() == [10, 13, 16, 19]


def test_convolution_equals_torch():
    conv = ShortConv(branches=2, width=3, kernel=4, dilation=2).double()
    torch.nn.init.normal_(conv.weight)
    x = torch.randn(2, 9, 2, 3, dtype=torch.float64)
    weight = conv.weight.flatten(0, 1).unsqueeze(1)  # [M d, 1, K]
    padded = torch.nn.functional.pad(x.flatten(2).transpose(1, 2), (6, 0))
    expected = torch.nn.functional.conv1d(padded, weight, dilation=2, groups=6).transpose(1, 2).view_as(x)
    assert torch.allclose(conv(x), expected, atol=1e-12)


def test_a_sequence_shorter_than_the_convolution():
    conv = ShortConv(branches=1, width=4, kernel=4, dilation=3)
    torch.nn.init.ones_(conv.weight)
    x = torch.randn(1, 2, 1, 4)
    assert torch.equal(conv(x), x)


def test_gates_of_both_kinds():
    torch.manual_seed(0)
    options = {"width": 8, "branches": 2, "memory_dim": 6, "conv_kernel": 0, "conv_dilation": 3, "bias": False, "norm_eps": 1e-6}
    plain, root = Fusion(gate="plain", **options), Fusion(gate="signed_sqrt", **options)
    root.load_state_dict(plain.state_dict())
    memory, hidden = torch.randn(1, 5, 6), torch.randn(1, 5, 2, 8)
    logit = plain.gates(memory, hidden).logit()
    assert torch.allclose(root.gates(memory, hidden).logit(), logit.sign() * logit.abs().sqrt(), atol=1e-4)
    assert torch.allclose(plain(memory, hidden), plain.gates(memory, hidden).unsqueeze(-1) * plain.value(memory).unsqueeze(2))
