"""Scoring jobs on Ray: jobs go in, finished files land in the store, events report the progress."""

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from engram.errors import UserError
from engram.files import REFUSALS, refusal
from engramctl.cluster.events import ENDED, PROGRESS, STARTED, Event
from engramctl.cluster.ray_errors import reason
from engramctl.cluster.scoring_worker import Machine, score_job
from engramctl.cluster.session import LASTING, Resources, trial_resources
from engramctl.cluster.shared_folder import require_shared
from engramctl.results.liveness import Process
from engramctl.results.score_requests import Job
from engramctl.results.trial_table import FAILED, FINISHED

_REPORT_S = 0.5
_RETRIES = 2
"""How often a job is restarted when its process dies."""
_MISTAKE = "mistake"
"""Outcome of a job whose request can't be met, or whose scores no disk takes."""


def run_jobs(jobs: Sequence[Job], machine: Machine, resources: Resources, on_event: Callable[[Event], None]) -> None:
    """Score all jobs, in order, as workers become free; an event's key is its job's file name.

    Raises UserError as soon as a job turns out to ask for something that can't be had: only the user can change that.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.queue import Empty, Queue

    if resources.address:
        for folder, checkpoint in {(job.folder, job.checkpoint) for job in jobs}:
            require_shared(resources.address, folder, [checkpoint])
    wanted = trial_resources(resources)
    news = Queue(actor_options=LASTING)

    @ray.remote(num_cpus=wanted["cpu"], num_gpus=wanted.get("gpu", 0), max_retries=_RETRIES)
    def score(job: Job, machine: Machine, news: Any, driver: Process) -> tuple[str, str, dict[str, str]]:
        from engramctl.cluster.worker import exit_with

        exit_with(driver)
        last = 0.0

        def progress(kind: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > _REPORT_S:
                last = time.monotonic()
                say(Event(job.file_name, PROGRESS, done=done, total=total, unit=kind))

        def say(event: Event) -> None:
            with suppress(RayError):
                news.put(event)

        say(Event(job.file_name, STARTED))
        try:
            return FINISHED, "", score_job(job, machine, progress)
        except UserError as mistake:
            return _MISTAKE, str(mistake), {}
        except OSError as problem:
            if problem.errno in REFUSALS:
                return _MISTAKE, refusal(problem), {}
            return FAILED, traceback.format_exc(), {}
        except Exception:
            return FAILED, traceback.format_exc(), {}

    driver = Process.this()
    waiting = {score.remote(job, machine, news, driver): job for job in jobs}
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=_REPORT_S)
        with suppress(RayError, Empty):  # its actor may be killed: progress is missed, and no more
            for event in news.get_nowait_batch(news.qsize()):
                on_event(event)
        for reference in done:
            job = waiting.pop(reference)
            try:
                outcome, text, left_out = ray.get(reference)
            except RayError as problem:
                outcome, text, left_out = FAILED, reason(problem), {}
            if outcome == _MISTAKE:
                raise UserError(text)
            on_event(Event(job.file_name, ENDED, status=outcome, error=text, left_out=left_out))
