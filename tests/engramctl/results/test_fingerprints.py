import os

import pytest

from engram.errors import UserError
from engramctl.results.fingerprints import fingerprint


def test_files_and_folders_count_by_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x.txt").write_text("text")
    file, other = (tmp_path / name / "deep" / "x.txt" for name in ("a", "b"))
    assert fingerprint(file) == fingerprint(other)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert fingerprint({"k": [file, 1, None]}) == fingerprint({"k": (other, 1, None)})
    before = file.stat()
    file.write_text("TEXT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert fingerprint(file) != fingerprint(other)
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
    other.rename(other.with_name("y.txt"))
    (tmp_path / "a" / "deep" / "x.txt").write_text("text")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_values_differ():
    values = [None, "", "None", 0, 0.5, [], {}, [None], ["a", "b"], ["b", "a"], {"a": "b"}]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="can't be read: No such file"):
        fingerprint(tmp_path / "nothing")
