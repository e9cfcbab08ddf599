"""What runs in a Ray worker: scoring one model on one request, written atomically before it is reported."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from engram.errors import UserError
from engramctl.results.provenance import package_version
from engramctl.results.score_requests import Job, Request
from engramctl.results.score_store import ScoreStore

if TYPE_CHECKING:
    from engram.evaluation.adapter import EngramLM
    from engram.evaluation.run import TaskResult
    from engram.training.checkpoints.restore import Restored

Progress = Callable[[str, int, int], None]
"""Called with lm-eval's request type, how many requests are done, and how many there are."""


@dataclass(frozen=True)
class Machine:
    """How a worker computes."""

    device: str
    threads: int
    batch_tokens: int
    git_sha: str


def score_job(job: Job, machine: Machine, progress: Progress) -> dict[str, str]:
    """Score a model and write rows and items. Returns why a task was left out, by task name.

    Raises UserError for a task that can't be had, OSError when the disk refuses.
    """
    from engram.evaluation.adapter import EngramLM
    from engram.training.machine import resolve_device, settle_process
    from engramctl.results.rows.scores import item_columns, score_columns

    started = time.monotonic()
    settle_process(machine.threads, resolve_device(machine.device))
    restored = _restored(job.checkpoint, machine.device)
    model = EngramLM.from_restored(restored, job.max_length, batch_tokens=machine.batch_tokens, on_progress=progress)
    evaluated = evaluate_request(job.request, model)
    known = {
        "wall_s": time.monotonic() - started,
        "tokens_asked": model.passes.tokens_asked,
        "tokens_run": model.passes.tokens_run,
        "lm_eval": package_version("lm_eval"),
        "git_sha": machine.git_sha or None,
        "device": str(restored.model.head_weight.device),
        "precision": model.precision,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if json.dumps(job.request.identity(job.max_length), sort_keys=True) != job.identity:
        raise UserError(f"{job.request.name}: its files were changed while it was scored; the same command scores it anew")
    rows = score_columns(job, evaluated.results, evaluated.floors, known)
    ScoreStore(job.folder).write(job.file_name, rows, item_columns(evaluated.results), job.content)
    return evaluated.left_out


@dataclass(frozen=True)
class Evaluated:
    """What a model scored on a request."""

    results: "list[TaskResult]"
    floors: dict[str, float]
    """RULER: by task, the score of an answer that repeats the end of its prompt."""
    left_out: dict[str, str]
    """RULER: why a task was left out, by task name."""


def evaluate_request(request: Request, model: "EngramLM") -> Evaluated:
    """Score a model on a request; UserError for a task that can't be had."""
    from engram.evaluation.run import evaluate

    settings = request.settings
    if request.length is None:
        fewshot, offline = settings.fewshot, settings.offline
        results = evaluate(model, [request.task], data=settings.data, limit=settings.limit, fewshot=fewshot, offline=offline)
        return Evaluated(results, {}, {})
    from engram.evaluation.ruler.suite import SAMPLES, Sources, ruler_suite

    sources = Sources(settings.haystack, settings.squad, settings.hotpotqa, settings.words)
    n = settings.limit or SAMPLES
    suite = ruler_suite(request.ruler_tasks, request.length, model.encoder, n, sources, offline=settings.offline)
    return Evaluated(evaluate(model, [], custom=suite.tasks, offline=True), suite.floors, suite.left_out)


@lru_cache(maxsize=1)
def _restored(checkpoint: Path, device: str) -> "Restored":
    from engram.training.checkpoints.restore import load_final
    from engram.training.machine import resolve_device

    return load_final(checkpoint, resolve_device(device))
