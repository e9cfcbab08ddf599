import pytest

from engram.errors import UserError
from engramctl.commands.options.parse import numbers, whole_numbers


def test_numbers():
    assert numbers("--rho", ["0.5, 1", "1e3"]) == [0.5, 1.0, 1000.0]
    assert whole_numbers("--seed", ["0,7", "٣"]) == [0, 7, 3]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "9" * 5000, "half"])
def test_what_is_no_number_of_any_use(text):
    with pytest.raises(UserError, match=r"^--rho: .* is not a (finite )?number"):
        numbers("--rho", [f"1,{text}"])


@pytest.mark.parametrize("text", ["-1", "1.5", "²", "9" * 5000, "one"])
def test_what_is_no_whole_number(text):
    with pytest.raises(UserError, match=r"^--seed: .* is not a whole number") as mistake:
        whole_numbers("--seed", [f"1,{text}"])
    assert len(str(mistake.value)) < 200
