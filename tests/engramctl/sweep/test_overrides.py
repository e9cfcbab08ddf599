from hypothesis import given
from hypothesis import strategies as st

from engramctl.sweep.overrides import deep_merge


@given(st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(), st.dictionaries(st.sampled_from("xy"), st.integers()))))
def test_merging_nothing_changes_nothing(base):
    assert deep_merge(base, {}) == base
    assert deep_merge({}, base) == base
    assert deep_merge(base, base) == base
