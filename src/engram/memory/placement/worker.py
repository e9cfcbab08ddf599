"""A background thread that does the tables' work in the order in which it was asked for."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Worker:
    """Runs jobs in order, one at a time, so that a row is never read while an update of it is pending, and no lock is needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tables")
        self._unseen: list[Future[None]] = []
        self.wait_s = 0.0
        """Seconds that callers of `result` have spent waiting."""
        self.cpu_s = 0.0
        """Processor seconds of the jobs themselves."""

    def ask(self, job: Callable[[], T]) -> "Future[T]":
        """Run `job` after everything asked for before; `result` returns or raises what it does."""
        return self._pool.submit(self._do, job)

    def _do(self, job: Callable[[], T]) -> T:
        started = time.thread_time()
        try:
            with torch.no_grad():  # the mode is per thread
                return job()
        finally:
            self.cpu_s += time.thread_time() - started

    def tell(self, job: Callable[[], None]) -> None:
        """The same for a job that nobody waits for; `check` or `drain` raises what it raises."""
        self._unseen.append(self.ask(job))

    def result(self, asked: "Future[T]") -> T:
        """Wait for a job, counting the time, and return its result."""
        if asked.done():
            return asked.result()
        started = time.perf_counter()
        try:
            return asked.result()
        finally:
            self.wait_s += time.perf_counter() - started

    def check(self) -> None:
        """Raise what jobs that nobody waited for have raised so far."""
        done = [job for job in self._unseen if job.done()]
        self._unseen = [job for job in self._unseen if not job.done()]
        for job in done:
            job.result()

    def drain(self) -> None:
        """Wait until everything asked for is done."""
        self.ask(lambda: None).result()
        self.check()

    def close(self) -> None:
        """Finish the current job and end the thread; jobs not yet begun are cancelled."""
        self._pool.shutdown(wait=True, cancel_futures=True)
