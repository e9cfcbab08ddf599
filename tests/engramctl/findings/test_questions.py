import pytest

from engram.errors import UserError
from engramctl.findings.questions import KINDS, chosen_kinds, refusals

RHOS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def test_kinds_that_do_not_apply_are_refused_with_the_reason(opened, make_row, variant_rows):
    one = opened([make_row(0.5)])
    assert [kind for kind, reason in refusals(one).items() if reason is None] == ["allocation"]
    curve = opened([make_row(r) for r in RHOS])
    for kind, reason in (
        ("drift", "it needs loss over rho at two budgets or more"),
        ("memory", "it does not vary slots"),
        ("variants", "it has no two variants to compare at one rho"),
        ("layers", "model.memory.layers is not one of its axes"),
    ):
        with pytest.raises(UserError, match=f"^--kind {kind} does not apply to sweep 'allocation': {reason}; what applies: allocation$"):
            chosen_kinds(kind, curve)
    pair = opened(variant_rows("part", "a", [3.0]) + variant_rows("part", "b", [3.0]))
    assert chosen_kinds("auto", pair) == ["variants"]
    with pytest.raises(UserError, match="no size, budget and variant of it has two values of rho"):
        chosen_kinds("allocation", pair)
    with pytest.raises(UserError, match="it varies slots on a fixed backbone; what applies: memory"):
        chosen_kinds("allocation", opened([make_row(r) for r in RHOS], slots=[0, 1000]))
    with pytest.raises(UserError, match=f"--kind pie: auto, {', '.join(KINDS)}, evals, ruler are allowed"):
        chosen_kinds("pie", curve)
