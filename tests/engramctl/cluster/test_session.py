import pytest

from engram.errors import UserError
from engramctl.cluster.session import Resources, cluster_workers


def test_how_many_trials_a_cluster_has_room_for(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 9.0})
    assert [cluster_workers(Resources("cpu", None, "auto", devices)) for devices in (1, 2, 4, 9)] == [9, 4, 2, 1]
    with pytest.raises(UserError, match="--devices-per-trial 10: the Ray cluster has 9 CPUs"):
        cluster_workers(Resources("cpu", None, "auto", 10))
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 9.0, "GPU": 4.0})
    assert cluster_workers(Resources("cuda", 3, "auto", 2)) == 2
    with pytest.raises(UserError, match="--devices-per-trial 5: the Ray cluster has 9 CPUs and 4 GPUs"):
        cluster_workers(Resources("cuda", None, "auto", 5))
