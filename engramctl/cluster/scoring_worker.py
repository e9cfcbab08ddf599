"""What runs in a Ray worker: one request to one model, kept atomically before anybody is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from engramctl.results.score_requests import Job
from engramctl.results.score_store import ScoreStore

if TYPE_CHECKING:
    from engram.training.checkpoints.restore import Restored

Progress = Callable[[str, int, int], None]
"""Takes the kind of lm-eval's requests, how many are done, and how many there are."""


@dataclass(frozen=True)
class Machine:
    """How a worker computes."""

    device: str
    threads: int
    batch_tokens: int
    git_sha: str


def score_job(job: Job, machine: Machine, progress: Progress) -> dict[str, str]:
    """Score a model and keep rows and items. Returns what was left out, and why.

    Raises UserError for a task that can't be had, OSError when the disk refuses.
    """
    from engram.evaluation.adapter import EngramLM
    from engram.evaluation.run import evaluate
    from engram.training.machine import settle_process
    from engramctl.results.rows.scores import item_columns, score_columns

    started = time.monotonic()
    settle_process(machine.threads)
    restored, settings = _restored(job.checkpoint, machine.device), job.request.settings
    model = EngramLM.from_restored(restored, job.max_length, batch_tokens=machine.batch_tokens, on_progress=progress)
    floors: dict[str, float] = {}
    left_out: dict[str, str] = {}
    if job.request.is_ruler:
        from engram.evaluation.ruler.suite import SAMPLES, Sources, ruler_suite

        assert job.request.length is not None
        sources = Sources(settings.haystack, settings.squad, settings.hotpotqa, settings.words)
        n = settings.limit or SAMPLES
        suite = ruler_suite(job.request.ruler_tasks, job.request.length, restored.tokenizer, n, sources, offline=settings.offline)
        floors, left_out = suite.floors, suite.left_out
        results = evaluate(model, [], custom=suite.tasks, offline=True)
    else:
        results = evaluate(
            model,
            [job.request.task],
            data=settings.data,
            limit=settings.limit,
            fewshot=settings.fewshot,
            offline=settings.offline,
        )
    known = {
        "wall_s": time.monotonic() - started,
        "tokens_asked": model.passes.tokens_asked,
        "tokens_run": model.passes.tokens_run,
        "lm_eval": version("lm_eval"),
        "git_sha": machine.git_sha or None,
        "device": str(restored.model.head_weight.device),
        "precision": model.precision,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    ScoreStore(job.folder).write(job.file_name, score_columns(job, results, floors, known), item_columns(results))
    return left_out


@lru_cache(maxsize=1)
def _restored(checkpoint: Path, device: str) -> "Restored":
    from engram.training.checkpoints.restore import load_final
    from engram.training.machine import resolve_device

    return load_final(checkpoint, resolve_device(device))
