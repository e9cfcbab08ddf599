import pytest

from engram.errors import UserError
from engramctl.results.trial_ids import find_trial


def test_find_trial():
    ids = {"abc1", "abc2", "abc", "d"}
    assert find_trial("abc", ids, "s") == "abc"
    assert find_trial("d", ids, "s") == "d"
    with pytest.raises(UserError, match="'ab' begins the ids of 3 trials of sweep s: abc, abc1, abc2; give more of it"):
        find_trial("ab", ids, "s")
    with pytest.raises(UserError, match="sweep s has no trial 'x'; it has no trials"):
        find_trial("x", [], "s")
