"""How many trials of a sweep a GPU trains at a time, when nobody has said so: as many as a short measurement finds to pay."""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from engram.benchmarks.pack import measure_pack, mps_runs
from engram.benchmarks.results.pack import worthwhile
from engram.benchmarks.timing import Report
from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.files import write_atomically
from engram.memory.placement.settings import TablePlacement
from engram.scaling.accounting import count_parameters
from engramctl.cluster.session import local_workers
from engramctl.present.format import counted, human
from engramctl.results.fingerprints import identity
from engramctl.results.measuring_code import measuring_code
from engramctl.sweep.memory import trial_memory

MOST = 8
"""Trials on one GPU, at most."""
_SECONDS = 2.0
"""For which each number of trials is timed."""
_WORTH_TOKENS = 50_000_000
"""Tokens that a GPU trains in about the time that the measurement takes: a sweep with fewer starts at once, with one trial on a GPU."""
_ROOM = 0.9
"""Share of a GPU's memory that trials may take by our estimate."""
_VARIES_OVER_RHO = {"memory": {"table_sizes"}, "moe": {"n_routed_experts", "shared_width"}}
_LENGTHS = {"steps", "n_validations", "val_tokens", "learning_rate"}
"""Fields of the training that change no step's time."""


@dataclass(frozen=True)
class Choice:
    """Trials at a time on all GPUs of this machine."""

    workers: int
    note: str
    """How they were chosen, in one line."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs that a sweep's trials go to, all alike."""

    device: torch.device
    count: int
    name: str
    memory_bytes: int
    """Of each."""

    @classmethod
    def here(cls, device: torch.device) -> "Gpus":
        """Those of this machine; a single one where the device has a number."""
        found = torch.cuda.get_device_properties(device)
        return cls(device, 1 if device.index is not None else torch.cuda.device_count(), found.name, found.total_memory)


def most_at_once(left: Sequence[TrialConfig], tables: TablePlacement, gpus: Gpus) -> int:
    """Trials that a GPU could train at a time: cores, trials and memory for the largest of them."""
    cores, share = local_workers("cpu") // gpus.count, math.ceil(len(left) / gpus.count)
    largest = max((trial_memory(trial, tables) for trial in left), default=1)
    return max(1, min(MOST, cores, share, int(_ROOM * gpus.memory_bytes / largest)))


def measured_trial(left: Sequence[TrialConfig]) -> TrialConfig:
    """A trial of the smallest size, of middle rho: small trials leave most room, and larger ones side by side lose nothing by it."""
    smallest = min(left, key=lambda trial: count_parameters(trial.model).p_active).size
    by_rho = sorted((trial for trial in left if trial.size == smallest), key=lambda trial: trial.rho)
    return by_rho[len(by_rho) // 2]


def known_choice(left: Sequence[TrialConfig], tables: TablePlacement, gpus: Gpus, cache: Path) -> Choice | None:
    """The choice that needs no measurement: there is nothing to choose, it would not pay, or it was measured here before."""
    most = most_at_once(left, tables, gpus)
    if most == 1 or sum(trial.train.tokens for trial in left) < _WORTH_TOKENS:
        return Choice(gpus.count, f"{counted(gpus.count, 'trial')} at a time, one on each GPU")
    found = _read(_file(measured_trial(left), most, gpus, cache))
    return None if found is None else _choice(found, gpus, "measured here before")


def choose(
    left: Sequence[TrialConfig], tables: TablePlacement, gpus: Gpus, corpus_folder: Path, cache: Path, report: Report | None = None
) -> Choice:
    """How many trials at a time give most tokens per second; measured unless `known_choice` knows it.

    Args:
        left: trials that are to be trained.
        tables: where their tables lie.
        gpus: where they train.
        corpus_folder: of their text.
        cache: where a measurement is kept for the next sweep of the same shape.
        report: told of the progress.
    """
    if (known := known_choice(left, tables, gpus, cache)) is not None:
        return known
    trial, most = measured_trial(left), most_at_once(left, tables, gpus)
    counts = [2**i for i in range(most.bit_length()) if 2**i <= most]
    try:
        pack = measure_pack(trial, corpus_folder, str(gpus.device), counts, _SECONDS * len(counts), report=report, until_flat=True)
    except UserError as problem:  # the trials will say so themselves
        return Choice(gpus.count, f"one trial on each GPU: {problem}")
    found = [(packed.workers, packed.together.median) for packed in pack.counts]
    file = _file(trial, most, gpus, cache)
    with suppress(OSError):  # a cache that can't be written is none
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(found).encode())
    return _choice(found, gpus, f"measured with size {trial.size}")


def _choice(found: Sequence[tuple[int, float]], gpus: Gpus, how: str) -> Choice:
    best = worthwhile(found)
    speeds = ", ".join(f"{workers}: {human(together)}" for workers, together in found)
    sharing = "through MPS" if mps_runs() else "by turns, no MPS daemon runs"
    return Choice(best * gpus.count, f"{best * gpus.count} at a time, {best} on each GPU ({sharing}): tokens/s together {speeds}; {how}")


def _file(trial: TrialConfig, most: int, gpus: Gpus, cache: Path) -> Path:
    """Where the measurement for trials of this shape on this kind of GPU is kept."""
    parts = {
        "gpu": gpus.name,
        "torch": torch.__version__,
        "mps": mps_runs(),
        "most": most,
        "model": trial.model.model_dump(mode="json", exclude=_VARIES_OVER_RHO if trial.model.memory else {"moe": _VARIES_OVER_RHO["moe"]}),
        "train": trial.train.model_dump(mode="json", exclude=_LENGTHS),
        "code": measuring_code("engram.training.trainer"),
    }
    return cache / "packs" / f"{identity('pack', parts)}.json"


def _read(file: Path) -> list[tuple[int, float]] | None:
    """What a file says; None where there is none, or something else."""
    try:
        found = [(int(workers), float(together)) for workers, together in json.loads(file.read_bytes())]
    except (OSError, ValueError, TypeError):
        return None
    return found or None
