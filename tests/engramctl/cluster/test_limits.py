from pathlib import Path

import psutil
import pytest

from engramctl.cluster import session
from engramctl.cluster.limits import cpu_quota, free_memory


def _put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({"sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"sys/fs/cgroup/cpu.max": "350000 100000"}, 3),
        ({"sys/fs/cgroup/cpu.max": "broken"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
        ({"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2),
        ({"proc/self/cgroup": "0::/job/step", "sys/fs/cgroup/job/cpu.max": "100000 100000"}, 1),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/job",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
            },
            1,
        ),
    ],
)
def test_a_containers_quota_of_cpus(tmp_path, files, cpus):
    _put(tmp_path, files)
    assert cpu_quota(tmp_path) == cpus


def test_trials_at_a_time_follow_the_quota(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for quota, workers in ((None, 8), (3, 3), (1, 1), (20, 8)):
        monkeypatch.setattr(session, "cpu_quota", lambda quota=quota: quota)
        assert session.local_workers("cpu") == workers


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 64_000),
        ({"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "9000"}, 64_000),
        ({"sys/fs/cgroup/memory.max": "10000", "sys/fs/cgroup/memory.current": "4000"}, 6000),
        (
            {
                "sys/fs/cgroup/memory.max": "10000",
                "sys/fs/cgroup/memory.current": "9000",
                "sys/fs/cgroup/memory.stat": "anon 7000\ninactive_file 2000",
            },
            3000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/job",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "10000",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "5000",
            },
            5000,
        ),
    ],
)
def test_a_containers_memory(tmp_path, monkeypatch, files, free):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 64_000})())
    _put(tmp_path, files)
    assert free_memory(tmp_path) == free
