import pytest

from engramctl.present import progress as progress_module
from engramctl.present.live import sweep as display
from engramctl.present.progress import StageProgress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def test_outside_a_terminal_stages_say_once_a_minute_what_is_left(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    with StageProgress() as report:
        for done in range(11):
            report("measuring", done, 10)
            clock[0] += 45
        report("reading", 5, None)
        clock[0] += 61
        report("reading", 2000, None)
    assert capsys.readouterr().err.splitlines() == [
        "measuring ...",
        *(f"measuring: {done}/10, about {left} left" for done, left in ((2, "6m00s"), (4, "4m30s"), (6, "3m00s"), (8, "1m30s"))),
        "reading ...",
        "reading: 2k",
    ]
