"""Compiling the kernels beside what else a sweep does before it trains."""

import threading
from concurrent.futures import Future


def compiling(device: str) -> "Future[tuple[str, ...]]":
    """Starts compiling the kernels if trials run on the CPU of this machine; those of a GPU are compiled as they are used.

    The result is there when they are compiled, or this machine can't do that: what there is to say about it, in lines, once training
    begins. It is a UserError when the disk is full.
    """
    from engram.kernels import gpu
    from engram.training.machine import resolve_device

    ready: Future[tuple[str, ...]] = Future()
    if resolve_device(device).type != "cpu":
        reason = gpu.missing()
        ready.set_result((f"training without kernels for the GPU, many times more slowly: {reason}",) if reason else ())
        return ready

    def prepare() -> None:
        from engram import kernels

        try:
            distrusted, reason = kernels.note(), kernels.prepare()
            without = reason and f"training without compiled kernels, more slowly: {reason}"
            ready.set_result(tuple(line for line in (distrusted, without) if line))
        except Exception as problem:
            ready.set_exception(problem)

    threading.Thread(target=prepare, daemon=True).start()
    return ready
