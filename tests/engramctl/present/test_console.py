"""What leaves the program: replaced where a stream can't show it, escaped where it would move the cursor, one line where it can't go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGRAMCTL = Path(sys.executable).parent / "engramctl"
REFERENCE = str(Path(__file__).parents[3] / "results" / "reference")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", line.replace("engramctl", str(ENGRAMCTL))], capture_output=True, env=os.environ | environment)


@pytest.mark.parametrize("command", ["--version", "--help", f"status --results {REFERENCE}", f"status --results {REFERENCE} --json"])
@pytest.mark.parametrize(("target", "why"), [("/dev/full", "No space left on device"), ("&-", "it is closed")])
def test_a_stdout_that_cannot_be_written_is_one_line(command, target, why):
    done = shell(f"engramctl {command} >{target}")
    assert done.returncode == 2
    assert done.stderr.decode() == f"error: standard output can't be written: {why}\n"


def test_a_reader_that_has_seen_enough_is_no_mistake():
    assert shell(f"engramctl status laptop --results {REFERENCE} | head -1 | grep -c size").stdout == b"1\n"


@pytest.mark.parametrize("target", ["/dev/full", "&-"])
def test_talk_that_cannot_be_written_is_lost_and_no_more(target):
    assert shell(f"engramctl status laptop --results {REFERENCE} 2>{target}").returncode == 0
    assert shell(f"engramctl status nosuch --results {REFERENCE} 2>{target}").returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_other_encodings_get_replacements(encoding):
    done = shell(f"engramctl status laptop --results {REFERENCE}", PYTHONIOENCODING=encoding)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert "? finished" in done.stdout.decode(encoding)


@pytest.mark.parametrize("line", ["status --results {}", "sweep smoke --results {}", "plan {}.yaml", "plot x --results {}", "sample {} x"])
def test_long_names_are_one_line(line):
    done = shell(f"engramctl {line.format('a' * 300)}")
    assert done.returncode == 2
    assert len(done.stderr.decode().strip().splitlines()) == 1, done.stderr


def test_control_characters_are_written_out():
    done = shell(f"engramctl status $'x\\e[31m\\u202ey' --results {REFERENCE}")
    assert done.returncode == 2
    assert "sweep 'x\\x1b[31m\\u202ey' has no results" in done.stderr.decode()
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("columns", ["0", "1", "7", "99999999999", "none", "-3"])
def test_whatever_columns_says_every_cell_is_shown(columns):
    done = shell(f"engramctl status laptop --results {REFERENCE}", COLUMNS=columns)
    assert done.returncode == 0
    assert "2.12e12" in done.stdout.decode()


def test_a_deleted_current_folder_is_one_line(tmp_path):
    done = shell(f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; engramctl plan smoke")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1] == "error: the current folder was deleted; change to another one"


def test_rm_without_a_stdin_asks_nobody(tmp_path):
    (tmp_path / "old" / "trials").mkdir(parents=True)
    done = shell(f"engramctl rm old --results {tmp_path} <&-")
    assert done.returncode == 2
    assert b"there is no terminal to ask on" in done.stderr
    assert (tmp_path / "old").is_dir()


def test_settings_of_matplotlib_that_are_not_text_are_one_line(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"font.family: \xe9\n")
    done = shell(f"engramctl plot laptop --out {tmp_path} --results {REFERENCE}", MATPLOTLIBRC=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[-1].startswith("error: matplotlib can't read its settings")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_files_do_not_take_the_place_of_closed_streams(closed, tmp_path):
    seen = tmp_path / "seen"
    program = (
        "import os, sys; from engramctl.present.console import safe_streams\n"
        f"with safe_streams(): n = os.open('/dev/null', 0); open({str(seen)!r}, 'w').write(f'{{n > 2}} {{bool(sys.stdout.encoding)}}')"
    )
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, program])
    assert (done.returncode, seen.read_text()) == (0, "True True")
