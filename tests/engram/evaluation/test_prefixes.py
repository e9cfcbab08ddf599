import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.evaluation import prefixes
from engram.evaluation.prefixes import Group, distinct, shared_prefixes

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6)


def arrays(rows):
    return [np.array(row, dtype=np.int32) for row in rows]


@given(ROWS)
@settings(deadline=None)
def test_every_sequence_begins_the_distinct_one_that_it_is_given(rows):
    kept, row_of = distinct(arrays(rows))
    for row, number in zip(rows, row_of, strict=True):
        assert kept[number][: len(row)].tolist() == row
    texts = [tuple(row.tolist()) for row in kept]
    assert set(texts) <= set(map(tuple, rows))
    for a, b in itertools.permutations(texts, 2):
        assert b[: len(a)] != a


def cost(groups, rows, group_cost):
    alone = sum(len(rows[i]) for group in groups if not group.prefix for i in group.rows)
    shared = [group_cost + group.prefix + sum(len(rows[i]) - group.prefix for i in group.rows) for group in groups if group.prefix]
    return alone + sum(shared)


def partitions(places):
    if not places:
        yield []
        return
    first, rest = places[0], places[1:]
    for size in range(len(rest) + 1):
        for others in itertools.combinations(rest, size):
            left = [place for place in rest if place not in others]
            for more in partitions(left):
                yield [(first, *others), *more]


@given(ROWS, st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_no_other_grouping_sees_fewer_tokens(rows, group_cost):
    rows = [row.tolist() for row in distinct(arrays(rows))[0]]
    limits = [len(row) - 1 for row in rows]
    before, prefixes.GROUP_COST = prefixes.GROUP_COST, group_cost
    try:
        groups = shared_prefixes(arrays(rows), limits)
    finally:
        prefixes.GROUP_COST = before
    assert sorted(i for group in groups for i in group.rows) == list(range(len(rows)))
    for group in groups:
        assert group.prefix <= min(limits[i] for i in group.rows)
        assert len({tuple(rows[i][: group.prefix]) for i in group.rows}) == 1
    best = min(
        sum(
            min(
                sum(len(rows[i]) for i in part),
                *(
                    cost([Group(length, part)], rows, group_cost)
                    for length in range(1, 1 + min(limits[i] for i in part))
                    if len({tuple(rows[i][:length]) for i in part}) == 1
                ),
                10**9,
            )
            for part in partition
        )
        for partition in partitions(list(range(len(rows))))
    )
    assert cost(groups, rows, group_cost) == best


def test_subjects_share_their_examples_and_not_the_sentence_that_all_begin_with():
    sentence = list(range(10))
    subjects = [sentence + [100 + s] * 200 for s in range(3)]
    rows = arrays([subject + [q] * 20 for subject in subjects for q in (7, 8, 9)])
    groups = shared_prefixes(rows, [len(row) - 1 for row in rows])
    assert sorted((group.prefix, tuple(sorted(group.rows))) for group in groups) == [(210, (0, 1, 2)), (210, (3, 4, 5)), (210, (6, 7, 8))]


@given(ROWS, st.data())
@settings(deadline=None)
def test_limits_are_kept(rows, data):
    limits = [data.draw(st.integers(0, len(row))) for row in rows]
    groups = shared_prefixes(arrays(rows), limits)
    assert sorted(i for group in groups for i in group.rows) == list(range(len(rows)))
    assert all(group.prefix <= min(limits[i] for i in group.rows) for group in groups)


def test_thousands_of_nested_beginnings():
    rows = arrays([[1] * n for n in range(1, 3000)])
    groups = shared_prefixes(rows, [len(row) - 1 for row in rows])
    assert sorted(i for group in groups for i in group.rows) == list(range(2999))
    kept, row_of = distinct(rows)
    assert len(kept) == 1
    assert set(row_of) == {0}
