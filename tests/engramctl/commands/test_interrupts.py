import signal
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib, time, typer
from engramctl.commands.group import CommandGroup

app = typer.Typer(cls=CommandGroup)

@app.command()
def python():
    try:
        print("began", flush=True)
        time.sleep(100)
    finally:
        time.sleep(1)  # a further signal does not cut this short
        print("put in order", flush=True)

@app.command()
def compiled():
    print("began", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # many minutes in which no handler of Python's runs

app()
"""
LINE = "stopped; the same command does it again\n"


def listening() -> None:
    """Whoever started the tests may ignore signals, which is inherited."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT] * 3], ids=str)
@pytest.mark.parametrize(("command", "ended"), [("python", "put in order\n"), ("compiled", "")])
def test_a_command_ends_with_one_line(command, ended, numbers):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening
    )
    try:
        assert program.stdout.readline() == "began\n"
        for number in numbers:
            program.send_signal(number)
        out, err = program.communicate(timeout=60)
    finally:
        program.kill()
    assert (program.returncode, out, err) == (130, ended, LINE)


def test_nohup_is_heeded():
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "python"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: (listening(), signal.signal(signal.SIGHUP, signal.SIG_IGN)),
    )  # fmt: skip
    try:
        program.stdout.readline()
        program.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(timeout=1)
    finally:
        program.kill()
        program.communicate()
