import pytest

from engramctl.cluster.events import ENDED, PROGRESS, RETRY, STARTED, Event
from engramctl.present.live import sweep as display
from engramctl.sweep.build import expand
from engramctl.sweep.files import find_sweep, load_sweep


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def make_trials(n):
    spec = load_sweep(find_sweep("allocation"), {"rhos": [i / n for i in range(n)]})
    return expand(spec, [1e12], 512, "c", "t")


def progress(trial, step):
    return Event(trial.id, PROGRESS, done=step, train_loss=5.0, tokens_per_s=1.0)


def test_what_a_worker_has_to_say_is_said_once(capsys):
    (trial,) = make_trials(1)
    with display.SweepDisplay([trial], 0) as view:
        view.on_event(Event(trial.id, STARTED))
        for step in (10, 11):
            view.on_event(Event(trial.id, PROGRESS, done=step, note="step-2 is damaged (checksum): training goes on from step-1"))
    assert capsys.readouterr().err.count("step-2 is damaged (checksum): training goes on from step-1") == 1


def test_time_left_follows_the_pace(clock, capsys):
    trials = make_trials(4)
    steps = trials[0].train.steps
    with display.SweepDisplay(trials, 0) as view:
        assert view.time_left() is None
        for trial in trials[:2]:
            view.on_event(Event(trial.id, STARTED))
            view.on_event(progress(trial, 10))
        clock[0] += 20
        for trial in trials[:2]:
            view.on_event(progress(trial, 110))  # five steps a second
        assert view.time_left() == pytest.approx((2 * (steps - 110) + 2 * steps) / 5 / 2)
        for trial in trials[:3]:
            view.on_event(Event(trial.id, ENDED, done=steps, status="finished", val_loss=4.0))
        view.on_event(Event(trials[3].id, STARTED))
        assert view.time_left() > 0
    assert "finished, validation loss 4.0000" in capsys.readouterr().err


def test_plain_lines_are_few_and_tell_of_trouble(clock, capsys):
    trials = make_trials(2)
    with display.SweepDisplay(trials, 3) as view:
        for trial in trials:
            view.on_event(Event(trial.id, STARTED))
        for step in range(1, 200):
            clock[0] += 1
            view.on_event(progress(trials[0], step))
        view.on_event(Event(trials[0].id, RETRY))
        view.on_event(Event(trials[0].id, ENDED, status="diverged", error="loss exploded"))
        view.on_event(Event(trials[1].id, ENDED, status="failed", error="killed"))
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) < 15
    assert any("starting again from its last checkpoint" in line for line in lines)
    assert any("diverged after" in line and "loss exploded" in line for line in lines)
    assert any("failed after" in line and "killed" in line for line in lines)
    assert any(line.startswith("3/5 trials done") for line in lines)
