import torch

from engram.benchmarks.shapes import STUDY, Setup
from engramctl.cluster.events import ENDED, PROGRESS, STARTED, Event
from engramctl.sweep.bench import TrialTimes, bench_spec
from engramctl.sweep.bench_result import SweepSpeed
from engramctl.sweep.build import expand


def test_where_the_time_of_a_sweep_went():
    times = TrialTimes()
    # Two workers, three trials; the clock starts at 100. 50 steps of 10 tokens at 100 tokens/s: five seconds ago.
    for now, event in (
        (103, Event("a", STARTED)),
        (110, Event("a", PROGRESS, done=50, tokens_per_s=100.0)),
        (112, Event("b", PROGRESS, done=50, tokens_per_s=100.0)),
        (120, Event("a", ENDED, done=150, tokens_per_s=100.0)),
        (124, Event("c", ENDED, done=20, tokens_per_s=100.0)),
        (130, Event("b", ENDED)),
    ):
        times.take(event, 10, now)
    assert times.begun == {"a": 105, "b": 107, "c": 122}
    assert times.waiting(100, workers=2) == 5 + 7
    assert times.idle_end(workers=2) == 6
    assert TrialTimes().idle_end(workers=2) == 0


def test_the_study_can_be_swept(tiny_corpus):
    spec = bench_spec("study", 0.8, 3, {"train": {"optimizer": {"kind": "adamw"}}})
    trials = expand(spec, [1e12], tiny_corpus.vocab_size, "c", "t")
    setup = Setup(STUDY, "adamw", tiny_corpus, torch.device("cpu"))
    assert {trial.model for trial in trials} == {setup.sparse(0.8)}
    assert [trial.seed for trial in trials] == [0, 1, 2]
    ours, theirs = trials[0].train, setup.train
    for name in ("seq_len", "batch_size", "learning_rate", "optimizer"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_shares_of_a_sweep_are_its_whole_time():
    speed = SweepSpeed(
        machine=None, workers=2, trials=4, steps=10, tokens_per_s=1.0, wall_s=100.0, startup_s=3.0, train_s=150.0, validation_s=20.0,
        waiting_s=8.0, idle_end_s=12.0, shutdown_s=1.0, problems=[],
    )  # fmt: skip
    assert speed.efficiency == 0.75
    assert speed.rest_s == 10.0
