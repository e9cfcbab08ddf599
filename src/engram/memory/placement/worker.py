"""One thread that does what the tables need, in the order in which it was asked for."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Worker:
    """Jobs in their order, one at a time: a row is never read while an update of it waits, and no lock is needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tables")
        self._unseen: list[Future[None]] = []
        self.wait_s = 0.0
        """Time for which `result` has kept its callers waiting."""
        self.cpu_s = 0.0
        """Processor time of the jobs themselves."""

    def ask(self, job: Callable[[], T]) -> "Future[T]":
        """Do `job` after all that was asked before; `result` gives what it returns or raises."""
        return self._pool.submit(self._do, job)

    def _do(self, job: Callable[[], T]) -> T:
        started = time.thread_time()
        try:
            with torch.no_grad():  # the mode is each thread's own
                return job()
        finally:
            self.cpu_s += time.thread_time() - started

    def tell(self, job: Callable[[], None]) -> None:
        """The same for a job that nobody waits for; what it raises, `check` or `drain` raises."""
        self._unseen.append(self.ask(job))

    def result(self, asked: "Future[T]") -> T:
        """What a job returned; waits for it, and counts the time."""
        if asked.done():
            return asked.result()
        started = time.perf_counter()
        try:
            return asked.result()
        finally:
            self.wait_s += time.perf_counter() - started

    def check(self) -> None:
        """Raise what a job that nobody waited for has raised so far."""
        done = [job for job in self._unseen if job.done()]
        self._unseen = [job for job in self._unseen if not job.done()]
        for job in done:
            job.result()

    def drain(self) -> None:
        """Wait until everything that was asked for is done."""
        self.ask(lambda: None).result()
        self.check()

    def close(self) -> None:
        """End the thread after what it is doing."""
        self._pool.shutdown(wait=True, cancel_futures=True)
