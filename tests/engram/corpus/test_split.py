import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram.corpus.document import Document
from engram.corpus.near_duplicates import near_duplicates
from engram.corpus.split import MOST_LINES, Split, connected, size_limit, split_documents
from engram.corpus.spool import Spool
from engram.errors import UserError


def quiet(*_):
    pass


def text(seed, lines=12):
    generator = np.random.default_rng(seed)
    return "\n".join("".join(generator.choice(list("abcdefghij "), size=50)) for _ in range(lines))


def spooled(folder, documents):
    return Spool(folder / "text", [Document(d) if isinstance(d, str) else d for d in documents], 10**9, quiet)


def sides(spool, val_fraction=0.2):
    """The split, and on which side each document is: "t", "v", or "-" for one that was left out."""
    split = split_documents(spool, val_fraction, quiet)
    of = dict.fromkeys(split.train, "t") | dict.fromkeys(split.val, "v")
    return split, "".join(of.get(number, "-") for number in range(len(spool.digests)))


def pairs_of(groups):
    pairs = [(groups.index(group), number) for number, group in enumerate(groups) if group]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def test_a_package_in_two_halves_stays_together(tmp_path):
    """Its files have nothing in common, and others stand between them."""
    documents = [Document(text(i), f"package {i % 20}") for i in range(100)]
    split, where = sides(spooled(tmp_path, documents))
    assert [set(where[i::20]) for i in range(20)] == [{where[i]} for i in range(20)]
    assert (split.facts.train_packages, split.facts.val_packages) == (where[:20].count("t"), where[:20].count("v"))
    assert (split.facts.train_components, split.facts.val_components) == (where[:20].count("t"), where[:20].count("v"))
    assert set(where) == {"t", "v"}


def test_copied_files_stay_with_their_originals_across_packages(tmp_path):
    copies = {i: text(i).replace("a", "A", 3) for i in range(40) if i % 4}
    documents = [Document(text(i), f"package {i}") for i in range(40)] + [Document(copy, f"fork of {i}") for i, copy in copies.items()]
    split, where = sides(spooled(tmp_path, documents))
    assert [where[i] for i in copies] == list(where[40:])
    assert {where[i] for i in copies} == {"t", "v"}
    facts = split.facts
    assert (facts.near_duplicate_documents, facts.near_duplicate_clusters, facts.overlap_documents) == (60, 30, 0)
    assert facts.train_components + facts.val_components == 40
    assert facts.train_packages + facts.val_packages == 70


def test_what_shares_lines_or_passages_with_training_is_left_out(tmp_path):
    """A licence and a helper in every other file are no copies of files, but they stand in training."""
    header = text(1000, 2)
    documents = [text(i, 14) if i % 2 else header + "\n" + text(i) for i in range(100)]
    split, where = sides(spooled(tmp_path, documents))
    assert "v" not in where[::2]
    assert 0 < where[::2].count("-") == split.facts.overlap_documents
    assert "-" not in where[1::2]
    assert split.facts.overlap_bytes == sum(len(d) for d, side in zip(documents, where, strict=True) if side == "-")
    assert split.facts.val_line_share == 0
    # Half of the lines, each too short to be a passage.
    lines = [f"    x{n} = {n}" for n in range(8)]
    documents = ["\n".join(v for pair in zip(lines, text(i).split("\n")[:8], strict=True) for v in pair) for i in range(30)]
    documents += [text(100 + i) for i in range(30)]
    split, where = sides(spooled(tmp_path, documents))
    assert "v" not in where[:30]
    assert where[:30].count("-") == split.facts.overlap_documents > 0
    assert split.facts.val_line_share < MOST_LINES


def test_text_that_repeats_itself_all_over_is_still_divided_and_says_so(tmp_path):
    lines = [text(i, 1) for i in range(30)]
    generator = np.random.default_rng(0)
    documents = ["\n".join(generator.choice(lines, size=8, replace=False)) for _ in range(200)]
    split, where = sides(spooled(tmp_path, documents))
    assert split.facts.val_line_share > MOST_LINES
    assert where.count("v") == -(-(where.count("v") + where.count("-")) // 4)


def test_the_first_validation_documents_are_in_the_order_of_their_hashes(tmp_path):
    spool = spooled(tmp_path, [Document(text(i), f"package {i % 30}") for i in range(120)])
    split = split_documents(spool, 0.3, quiet)
    hashes = [spool.digests[number] for number in split.val]
    assert hashes == sorted(hashes)
    assert split.train == sorted(split.train)
    assert len({spool.groups[number] for number in split.val[:8]}) > 3


def test_validation_is_about_the_share_that_was_asked_for(tmp_path):
    spool = spooled(tmp_path, [text(i) for i in range(400)])
    for fraction in (0.02, 0.2, 0.6):
        assert len(split_documents(spool, fraction, quiet).val) == pytest.approx(400 * fraction, abs=1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.sampled_from([None, "a", "b", "c"])), min_size=1, max_size=25),
    st.floats(0.01, 0.99),
)
def test_groups_stay_whole_and_both_sides_have_text(tmp_path, shapes, val_fraction):
    spool = spooled(tmp_path, [Document(text(seed, lines), group) for seed, lines, group in shapes])
    together = connected(len(spool.digests), np.concatenate([near_duplicates(spool, quiet), pairs_of(spool.groups)]))
    if together.max() == 0:
        with pytest.raises(UserError, match="nothing for validation"):
            sides(spool, val_fraction)
        return
    split, where = sides(spool, val_fraction)
    assert split.train
    assert split.val
    for group in "abc":
        assert len({side for side, other in zip(where, spool.groups, strict=True) if other == group} - {"-"}) < 2
    assert split == split_documents(spool, val_fraction, quiet)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([text(1)], "the corpus has one document and nothing for validation; take more"),
        ([Document(text(i), "a") for i in range(3)], "has 3 documents and nothing for validation: they are near-duplicates of one another"),
        ([text(1), text(1) + "!"], "has 2 documents and nothing for validation: they are near-duplicates"),
    ],
)
def test_a_corpus_that_can_not_be_divided_is_one_line(tmp_path, documents, message):
    with pytest.raises(UserError, match=message):
        split_documents(spooled(tmp_path, documents), 0.04, quiet)


def test_two_documents_are_one_on_each_side(tmp_path):
    for fraction in (0.001, 0.5, 0.999):
        _, where = sides(spooled(tmp_path, [text(1), text(2)]), fraction)
        assert sorted(where) == ["t", "v"]


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=300), st.floats(1, 10_000))
def test_components_that_may_be_validation_are_many_or_half_of_all(sizes, target):
    """Components of documents of one byte, so that only the components count."""
    sizes = np.array(sizes)
    limit = size_limit(sizes, np.ones(sizes.sum(), dtype=np.int64), target)
    assert (sizes <= limit).sum() >= len(sizes) / 2
    if limit > np.sort(sizes)[(len(sizes) - 1) // 2]:
        assert limit <= target / 8
        # The limit is a size or the eighth of the target; what is drawn has a mean of at most a 32nd, or ties push it a little over.
        assert np.mean(sizes[sizes < limit]) <= target / 32


def test_a_package_that_is_large_is_training():
    sizes, files = np.array([5_000_000, 900_000, 100_000, *[20_000] * 200]), np.full(2000, 5000)
    assert size_limit(sizes, files, 400_000.0) == 20_000
    assert size_limit(sizes, files, 2_000_000.0) == 250_000


def test_in_a_small_corpus_long_documents_may_be_validation_too():
    sizes = np.arange(1, 101) * 1000
    assert size_limit(sizes, sizes, 200_000.0) == 90_000


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11))))
def test_connected(n, pairs):
    pairs = [(a % n, b % n) for a, b in pairs]
    label = list(range(n))
    for a, b in pairs:
        label = [label[a] if at == label[b] else at for at in label]
    found = connected(n, np.array(pairs, dtype=np.int64).reshape(-1, 2))
    for a, b in itertools.combinations(range(n), 2):
        assert (found[a] == found[b]) == (label[a] == label[b])


def test_a_fingerprint_covers_the_sides(tmp_path):
    spool = spooled(tmp_path, [text(i) for i in range(30)])
    split = split_documents(spool, 0.2, quiet)
    moved = Split(split.train[:-1], [*split.val, split.train[-1]], split.facts)
    dropped = Split(split.train, split.val[:-1], split.facts)
    prints = [s.fingerprint(spool, f) for s, f in ((split, 0.2), (split, 0.21), (moved, 0.2), (dropped, 0.2))]
    assert len(set(prints)) == 4
    assert prints[0] == split_documents(spool, 0.2, quiet).fingerprint(spool, 0.2)
