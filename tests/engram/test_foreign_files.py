import os
import threading

import pytest

from engram.foreign_files import read_bytes, read_json, read_text, require_regular


def test_what_is_read(tmp_path):
    file = tmp_path / "file.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read_text(file) == "one\ntwo\nthree\n"
    assert read_bytes(file) == file.read_bytes()
    file.write_text('{"a": [1]}')
    assert read_json(file) == {"a": [1]}
    require_regular(file)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_bytes, require_regular):
        with pytest.raises(OSError, match=r"pipe that nobody writes to|no regular file"):
            read(tmp_path / "pipe")


def test_a_pipe_with_a_writer_is_read_to_its_end(tmp_path):
    """As a shell's `<(command)`."""
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, b"x" * 100_000), os.close(writing)))
    writer.start()
    assert read_bytes(tmp_path / f"/dev/fd/{reading}") == b"x" * 100_000
    writer.join()
    os.close(reading)


def test_more_than_the_limit(tmp_path):
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**40)
    for read in (read_bytes, require_regular):
        with pytest.raises(OSError, match="it has more than 268,435,456 bytes"):
            read(tmp_path / "large")
    require_regular(tmp_path / "large", most=None)
    with pytest.raises(OSError, match="more than 1,000 bytes"):
        read_bytes("/dev/zero", 1000)


def test_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    with pytest.raises(OSError, match="it is a folder"):
        require_regular(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("[" * 100_000, "nested too deeply"), ("{", "Expecting"), ("9" * 5000, "digits")])
def test_what_is_no_json_that_can_be_read(tmp_path, content, message):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "file.json")
