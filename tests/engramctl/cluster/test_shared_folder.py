from types import SimpleNamespace

import pytest

from engram.errors import UserError
from engramctl.cluster import shared_folder


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of machines, each of which sees paths through a function."""

    def machines(**sees) -> None:
        ids = {f"{i + 1:056x}": name for i, name in enumerate(sees)}
        nodes = [{"NodeID": i, "NodeManagerHostname": name, "Alive": name != "dead"} for i, name in ids.items()]
        monkeypatch.setattr("ray.nodes", lambda: nodes)
        monkeypatch.setattr("ray.get", lambda answer, timeout: answer)

        def options(scheduling_strategy):
            see = sees[ids[scheduling_strategy.node_id]]
            return SimpleNamespace(
                remote=lambda folder, probe, answer, read: shared_folder.answer_probe(see(folder), probe, answer, [see(p) for p in read])
            )

        monkeypatch.setattr("ray.remote", lambda **_: lambda _: SimpleNamespace(options=options))

    return machines


def test_a_folder_that_all_share(cluster, tmp_path):
    results, corpus = tmp_path / "results", tmp_path / "corpus"
    corpus.mkdir()
    cluster(a=lambda p: p, b=lambda p: p, dead=lambda p: p / "elsewhere")
    shared_folder.require_shared("head:6379", results, [corpus])
    assert list(results.iterdir()) == []


def test_folders_that_some_machine_does_not_share(cluster, tmp_path):
    results, other = tmp_path / "results", tmp_path / "other"
    results.mkdir()
    other.mkdir()
    cluster(a=lambda p: p, b=lambda p: other)
    with pytest.raises(UserError, match=r"--address head:6379: on b, .*other is not there, or is another folder; choose a folder that all"):
        shared_folder.require_shared("head:6379", results)
    cluster(b=lambda p: p)
    with pytest.raises(UserError, match=r"on b, .*corpus is not there"):
        shared_folder.require_shared("head:6379", results, [tmp_path / "corpus"])
    assert list(results.iterdir()) == list(other.iterdir()) == []


def test_answers_that_do_not_arrive(cluster, tmp_path, monkeypatch):
    cluster(a=lambda p: p)
    monkeypatch.setattr(shared_folder, "answer_probe", lambda *_: "")
    with pytest.raises(UserError, match=r"on a, what it writes to .* does not arrive here"):
        shared_folder.require_shared("auto", tmp_path)
