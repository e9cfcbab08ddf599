"""Whether the machines of a cluster see the same folders as this one."""

import uuid
from collections.abc import Iterable
from pathlib import Path

from engram.errors import UserError

_ANSWER_S = 60.0


def require_shared(address: str, folder: Path, read: Iterable[Path] = ()) -> None:
    """UserError unless every machine of the cluster writes into `folder` of this machine, and sees the folders `read`.

    Workers write rows and checkpoints themselves. On a machine with a folder of its own they would be lost without a word.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    answer = ray.remote(num_cpus=0, max_retries=1)(answer_probe)
    probe, read = f".probe-{uuid.uuid4().hex}", list(read)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / probe).write_text(probe)
        asked = []
        for node in ray.nodes():
            if node["Alive"]:
                there = answer.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
                name = f"{probe}-{node['NodeID']}"
                asked.append((node["NodeManagerHostname"], name, there.remote(folder, probe, name, read)))
        for host, name, reference in asked:
            try:
                problem = ray.get(reference, timeout=_ANSWER_S)
            except ray.exceptions.RayError as lost:
                problem = f"no answer ({type(lost).__name__})"
            if not problem and not (folder / name).exists():
                problem = f"what it writes to {folder} does not arrive here"
            if problem:
                raise UserError(f"--address {address}: on {host}, {problem}; choose a folder that all machines share")
    finally:
        for left in folder.glob(f"{probe}*"):
            left.unlink(missing_ok=True)


def answer_probe(folder: Path, probe: str, answer: str, read: Iterable[Path]) -> str:
    """What a worker does: read the probe, write an answer beside it. Returns what is wrong, or nothing."""
    try:
        if (folder / probe).read_text() != probe:
            return f"{folder} is another folder"
        (folder / answer).write_text(answer)
    except FileNotFoundError:
        return f"{folder} is not there, or is another folder"
    except OSError as problem:
        return f"{folder} can't be used: {problem.strerror}"
    missing = [str(other) for other in read if not other.exists()]
    return f"{missing[0]} is not there" if missing else ""
