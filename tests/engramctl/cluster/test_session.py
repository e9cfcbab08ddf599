import pytest

from engram.errors import UserError
from engramctl.cluster.session import Resources, cluster_workers, ray_session, trial_resources


def test_how_many_trials_a_cluster_has_room_for(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 9.0})
    assert [cluster_workers(Resources("cpu", None, "auto", devices)) for devices in (1, 2, 4, 9)] == [9, 4, 2, 1]
    with pytest.raises(UserError, match="--devices-per-trial 10: the Ray cluster has 9 CPUs"):
        cluster_workers(Resources("cpu", None, "auto", 10))
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 9.0, "GPU": 4.0})
    assert cluster_workers(Resources("cuda", 3, "auto", 2)) == 2
    with pytest.raises(UserError, match="--devices-per-trial 5: the Ray cluster has 9 CPUs and 4 GPUs"):
        cluster_workers(Resources("cuda", None, "auto", 5))


@pytest.mark.parametrize(("gpus", "workers", "on_each"), [(8, 12, 2), (8, 8, 1), (8, 3, 1), (1, 3, 3), (1, 6, 6), (1, 7, 7), (2, 5, 3)])
def test_all_workers_find_a_place_on_the_gpus(monkeypatch, gpus, workers, on_each):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 64.0, "GPU": float(gpus)})
    resources = Resources("cuda", workers, None)
    share = trial_resources(resources)["gpu"]
    units = round(share * 10_000)  # what Ray makes of it
    assert share * 10_000 == pytest.approx(units)
    assert on_each * units <= 10_000 < (on_each + 1) * units
    assert cluster_workers(resources) == gpus * on_each >= workers


def test_without_a_number_of_workers_each_trial_has_a_gpu(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 64.0, "GPU": 8.0})
    assert trial_resources(Resources("auto", None, "auto")) == {"cpu": 1.0, "gpu": 1.0}
    assert trial_resources(Resources("cuda", 12, "auto", devices=2)) == {"cpu": 1.0, "gpu": 1.0}


COLD = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 772, in Datapath
    raise RuntimeError(
RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err for detailed logs.
"""


def _cluster(monkeypatch, failures: int) -> list[str]:
    """A cluster that has just been started: its first sessions fail. Returns where the addresses of the attempts will be."""
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) <= failures:
            raise ConnectionAbortedError(COLD)

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("engramctl.cluster.session._require_cluster", lambda address: None)
    return asked


def test_a_cold_cluster_is_asked_again(monkeypatch):
    asked = _cluster(monkeypatch, failures=2)
    with ray_session(Resources("cpu", None, "ray://head:10001")):
        assert asked == ["ray://head:10001"] * 3


def test_a_cluster_that_stays_cold_is_one_line_with_its_cause(monkeypatch):
    _cluster(monkeypatch, failures=9)
    with pytest.raises(UserError) as refusal, ray_session(Resources("cpu", None, "ray://head:10001")):
        pass
    cause = "Initialization failure from server: RuntimeError: Starting Ray client server failed."
    assert str(refusal.value).startswith(f"Ray at ray://head:10001 can't be reached: {cause}")
    assert "\n" not in str(refusal.value)


def test_a_cluster_by_its_address_is_asked_once(monkeypatch):
    asked = _cluster(monkeypatch, failures=9)
    with pytest.raises(UserError), ray_session(Resources("cpu", None, "head:6379")):
        pass
    assert len(asked) == 1
