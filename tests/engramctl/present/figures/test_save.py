import pytest

from engram.errors import UserError
from engramctl.present.figures.panels import new_figure
from engramctl.present.figures.save import FORMATS, check_formats, save


def test_formats():
    assert check_formats("pdf, png,pdf") == ("pdf", "png")
    assert check_formats(",".join(FORMATS)) == FORMATS
    for text, message in (("gif", "--format gif: png, svg, pdf are allowed"), (",", "names no format")):
        with pytest.raises(UserError, match=message):
            check_formats(text)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        save(new_figure(2, 1), tmp_path / "file" / "figures", "empty")
