"""Tables in narrow terminals: what a wide terminal shows, a narrow one shows too."""

import io

import pytest

from engramctl.present import console

NAMES = ["order", "head", "rows", "reads", "N-grams", "of its owner, %", "loss alone", "95 %"]
ROWS = [[order, head, "6,900", "100,000", "517,123", "61.4", f"4.{head}44", f"34.{head} to 39.1"] for order in (2, 3) for head in range(4)]


def printed(table, width: int) -> list[str]:
    terminal = console.Console(width=width, file=io.StringIO())
    terminal.print(table)
    return terminal.file.getvalue().splitlines()


def test_a_table_that_fits_is_one_block():
    lines = printed(console.table(NAMES, ROWS, left=2), 140)
    assert len(lines) == 1 + len(ROWS)
    assert lines[0].split() == " ".join(NAMES).split()


@pytest.mark.parametrize("width", [36, 40, 60, 80])
def test_a_narrow_one_has_blocks_that_begin_with_the_names(width):
    lines = printed(console.table(NAMES, ROWS, left=2, title="Rows"), width)
    assert max(map(len, lines)) <= width
    title, *blocks = "\n".join(lines).split("order  head")
    assert title.strip() == "Rows"
    text = "\n".join(lines)
    for name in NAMES[2:]:
        assert text.count(name) == 1
    for row in ROWS:
        for cell in row[2:]:
            assert cell in text
    for block in blocks:
        assert [line.split()[:2] for line in block.splitlines()[1:] if line.strip()] == [[str(row[0]), str(row[1])] for row in ROWS]
    assert "…" not in text


def test_an_interval_stays_beside_its_estimate():
    lines = printed(console.table(["v", "estimate", "other", "difference", "95 %"], [["a", 1, 2, 3, "2.5 to 3.5"]]), 32)
    assert [line.split() for line in lines if "v" in line] == [["v", "estimate", "other"], ["v", "difference", "95", "%"]]


def test_names_fold_before_numbers_do():
    lines = printed(console.table(["variant", "95 %"], [["a long name of a variant", "1.2345 to 2.3456"]]), 28)
    assert "1.2345 to 2.3456" in lines[1]
    assert " ".join(line[:10].strip() for line in lines[1:]) == "a long name of a variant"


@pytest.mark.parametrize("width", [4, 7])
def test_nothing_is_cut_off_even_where_numbers_have_to_fold(width):
    lines = printed(console.table(["v", "x"], [["name", "1.2345"]]), width)
    assert sorted("".join(lines).replace(" ", "")) == sorted("vxname1.2345")
