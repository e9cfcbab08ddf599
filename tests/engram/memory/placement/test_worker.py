import threading

import pytest

from engram.memory.placement.worker import Worker


def test_jobs_of_the_worker_go_in_their_order_and_none_is_lost():
    worker, done, gate = Worker(), [], threading.Event()
    worker.tell(lambda: gate.wait(10))
    for number in range(50):
        worker.tell(lambda number=number: done.append(number))
    last = worker.ask(lambda: len(done))
    gate.set()
    assert worker.result(last) == 50
    assert done == list(range(50))
    assert worker.wait_s > 0
    worker.tell(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker.drain()
    worker.drain()
    worker.close()
