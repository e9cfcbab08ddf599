"""Ray: requests in, finished files in the store; progress on the way."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engram.errors import UserError
from engramctl.evals.requests import Job
from engramctl.evals.worker import Machine, score_job
from engramctl.running import Process
from engramctl.schedule import Resources, trial_resources

_REPORT_S = 0.5
_RETRIES = 2
"""Times that a request is started again when its process dies."""


@dataclass(frozen=True)
class Event:
    """News of one request."""

    job: int
    """Its number."""
    kind: str
    """started, progress, finished, failed"""
    done: int = 0
    total: int = 0
    what: str = ""
    """Progress: the kind of lm-eval's requests. Failed: the error in a line."""
    left_out: dict[str, str] = field(default_factory=dict)


def run_jobs(jobs: Sequence[Job], machine: Machine, resources: Resources, on_event: Callable[[Event], None]) -> None:
    """Score all jobs, in their order as workers come free.

    Raises UserError at once when one of them can't be had: what the user asked for has to change.
    """
    import ray
    from ray.util.queue import Queue

    wanted = trial_resources(resources)
    news = Queue(actor_options={"num_cpus": 0})

    @ray.remote(num_cpus=wanted["cpu"], num_gpus=wanted.get("gpu", 0), max_retries=_RETRIES)
    def score(number: int, job: Job, machine: Machine, news: Any, driver: Process) -> tuple[str, str, dict[str, str]]:
        from engramctl.worker import exit_with

        exit_with(driver)
        last = 0.0

        def progress(kind: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > _REPORT_S:
                last = time.monotonic()
                news.put(Event(number, "progress", done, total, kind))

        news.put(Event(number, "started"))
        try:
            return "finished", "", score_job(job, machine, progress)
        except UserError as mistake:
            return "mistake", str(mistake), {}
        except Exception:
            return "failed", traceback.format_exc(), {}

    driver = Process.this()
    waiting = {score.remote(number, job, machine, news, driver): number for number, job in enumerate(jobs)}
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=_REPORT_S)
        for event in news.get_nowait_batch(news.qsize()):
            on_event(event)
        for reference in done:
            number = waiting.pop(reference)
            try:
                outcome, text, left_out = ray.get(reference)
            except ray.exceptions.RayError as problem:
                outcome, text, left_out = "failed", f"its process died: {str(problem).splitlines()[0]}", {}
            if outcome == "mistake":
                raise UserError(text)
            on_event(Event(number, outcome, what=text, left_out=left_out))
