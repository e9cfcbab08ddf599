from engram.benchmarks.results import Measured
from engram.benchmarks.timing import paired_interval, rates


def test_median_and_range():
    assert Measured.of([3.0, 1.0, 10.0]) == Measured(3.0, 1.0, 10.0)
    assert rates([0.5, 2.0, 1.0], 10) == Measured(10.0, 5.0, 20.0)


def test_the_interval_of_a_median_takes_ranks_of_the_binomial_distribution():
    """Ranks as in tables of the sign test: 6 and 15 of 20, 40 and 61 of 100."""
    for n, low, high in ((6, 1, 6), (20, 6, 15), (100, 40, 61)):
        values = [float(n - i) for i in range(n)]
        assert Measured.interval(values) == Measured((n + 1) / 2, low, high)
    assert Measured.interval([3.0, 1.0, 10.0]) == Measured(3.0, 1.0, 10.0)  # too few: their range
    assert paired_interval([2.0] * 6, [1.0] * 6) == Measured(2.0, 2.0, 2.0)
