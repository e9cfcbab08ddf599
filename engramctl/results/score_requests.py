"""What is scored: a task with its settings (a request), and a model on it (a job)."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.training.checkpoints.files import WEIGHTS
from engramctl.present.format import short_trial_name
from engramctl.results.fingerprints import files_fingerprint, fingerprint, identity
from engramctl.results.measuring_code import measuring_code
from engramctl.results.provenance import package_version

RULER = "ruler"
DEFAULT_LENGTHS = (1024,)
"""Tokens of RULER's samples: the shortest power of two at which every task that needs no outside text can be generated."""
SCORING_CODE = (
    "engram.evaluation.run",
    "engram.evaluation.adapter",
    "engram.evaluation.ruler.suite",
    "engramctl.cluster.scoring_worker",
    "engramctl.results.rows.scores",
)
"""Modules that make a score what it is."""
SHORTEST = 256
"""Fewest tokens that a RULER sample may have."""


@dataclass(frozen=True)
class Settings:
    """Settings on the command line that apply to all tasks; paths are absolute."""

    limit: int | None = None
    fewshot: int | None = None
    max_length: int | None = None
    """None: as many tokens as the model was trained on."""
    data: Path | None = None
    offline: bool = False
    haystack: tuple[Path, ...] | None = None
    squad: Path | None = None
    hotpotqa: Path | None = None
    words: Path | None = None


@dataclass(frozen=True)
class Request:
    """One task or group; for RULER, at one length."""

    task: str
    """As typed: `mmlu`, `ruler`, `ruler:vt`."""
    length: int | None
    settings: Settings

    @property
    def is_ruler(self) -> bool:
        return self.length is not None

    @property
    def ruler_tasks(self) -> list[str]:
        """The RULER task that was named; empty: all of them."""
        _, _, name = self.task.partition(":")
        return [name] if name else []

    @property
    def name(self) -> str:
        return f"{self.task} at {self.length}" if self.is_ruler else self.task

    @property
    def task_file(self) -> Path | None:
        """The user's own definition, if the task is one."""
        file = Path(self.task)
        return file if not self.is_ruler and file.is_file() else None

    @property
    def label(self) -> str:
        """The task's name, also where it is defined by a file."""
        from engram.evaluation.task_files import task_label

        return self.task if self.task_file is None else task_label(self.task_file)

    def identity(self, max_length: int) -> dict[str, Any]:
        """All that the scores depend on besides model and code, as JSON values; settings that only other tasks use are left out.

        Files count by their content, not by their place. Raises UserError when one can't be read.
        """
        settings = self.settings
        common: dict[str, Any] = {"task": self.label, "limit": settings.limit, "max_length": max_length}
        if self.is_ruler:
            from engram.evaluation.ruler import SEED
            from engram.evaluation.ruler.suite import VERSION

            files = {name: _content(getattr(settings, name)) for name in ("squad", "hotpotqa", "words")}
            # RULER's own file has another form than text, and its name says so.
            haystack = [[file.suffix == ".json", fingerprint(file)] for file in settings.haystack] if settings.haystack else None
            return {**common, "length": self.length, "seed": SEED, "version": VERSION, "haystack": haystack, **files}
        from engram.evaluation.data import data_files
        from engram.evaluation.task_files import task_files

        if self.task_file is not None:
            common["definition"] = fingerprint(task_files(self.task_file))
        data = files_fingerprint(settings.data, data_files(settings.data)) if settings.data else None
        return {**common, "fewshot": settings.fewshot, "data": data, "lm_eval": package_version("lm_eval")}


@dataclass(frozen=True)
class Job:
    """One model to be scored on one request."""

    checkpoint: Path
    """Absolute."""
    folder: Path
    """The folder of `evals/` and `eval_items/`: the sweep's, or the checkpoint's."""
    trial: TrialConfig
    request: Request

    @property
    def max_length(self) -> int:
        return self.request.settings.max_length or self.trial.train.seq_len

    @cached_property
    def identity(self) -> str:
        """What was asked for, as JSON."""
        return json.dumps(self.request.identity(self.max_length), sort_keys=True)

    @cached_property
    def content(self) -> str:
        """Everything that the scores depend on, as its `fingerprints.identity`: what was asked for, the model, the code that scores."""
        parts = {
            "request": self.request.identity(self.max_length),
            "weights": self.checkpoint / WEIGHTS,
            "trial": self.trial.model_dump(mode="json"),
            "code": measuring_code(*SCORING_CODE),
        }
        return identity("score", parts)

    @cached_property
    def file_name(self) -> str:
        """Name of the files of its rows and of its items; the same for the same trial, task, contents of files and settings."""
        task = re.sub(r"[^A-Za-z0-9_-]+", "-", self.request.label)[-60:]
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:8]
        return f"{self.trial.id}.{task}.{digest}.parquet"

    @property
    def name(self) -> str:
        """The job in words, for a person."""
        return f"{short_trial_name(self.trial)} {self.request.name}"


def requests_for(tasks: Sequence[str], lengths: Sequence[int] | None, settings: Settings) -> list[Request]:
    """A request for each task, and for each length of a RULER task. UserError in one line for what makes no sense."""
    if lengths is not None and not any(_is_ruler(task) for task in tasks):
        raise UserError("--lengths is of ruler, which is not among the tasks")
    for length in lengths or ():
        if length < SHORTEST:
            raise UserError(f"--lengths: {length} is too short; RULER's samples have {SHORTEST} tokens or more")
    found = []
    for task in dict.fromkeys(task.strip() for task in tasks):
        if _is_ruler(task):
            _require_ruler_task(task)
            found += [Request(task, length, settings) for length in dict.fromkeys(lengths or DEFAULT_LENGTHS)]
        else:
            found.append(Request(task, None, settings))
    return found


def _is_ruler(task: str) -> bool:
    return task.partition(":")[0] == RULER


def _require_ruler_task(task: str) -> None:
    from engram.evaluation.ruler import TASKS

    _, colon, name = task.partition(":")
    if colon and name not in TASKS:
        raise UserError(f"there is no task {task}; {RULER} is all of {', '.join(f'{RULER}:{one}' for one in TASKS)}")


def _content(file: Path | None) -> str | None:
    return None if file is None else fingerprint(file)
