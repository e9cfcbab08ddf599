"""Who says something when a process can't."""

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys
from engramctl.cluster.last_word import LastWord
word = LastWord().start()
{end}
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os._exit(1)", True),
        ("os.kill(os.getpid(), signal.SIGKILL)", True),
        ("word.close(); os._exit(1)", False),
        ("word.close(); word.close()", False),
    ],
)
def test_only_an_end_without_a_word_has_a_line(end, said):
    done = subprocess.run([sys.executable, "-c", CODE.format(end=end)], capture_output=True, text=True, timeout=60)
    line = "error: this process was ended by Ray or from outside; what is finished is kept, and the same command continues\n"
    assert done.stderr == (line if said else "")


def test_without_a_shell_nobody_waits(monkeypatch):
    from engramctl.cluster import last_word

    def refuse(*_, **__):
        raise FileNotFoundError("/bin/sh")

    monkeypatch.setattr(last_word.subprocess, "Popen", refuse)
    last_word.LastWord().start().close()
