"""Runs one command line after another, each in a process of its own: `python fork_server.py ROOT`; not a test.

Loading PyTorch, Ray and lm-eval takes ten seconds, so this process loads them once, starts no thread, and forks for every case. It
reads requests from stdin and answers on stdout, a JSON object a line.

What is real: the parsing of the command line, all reading and checking of files, the preparation of text, planning, the loading of
models, analyses, fits, figures, all writing. What is not:

- Ray never starts. `ray.init` says that it can't, after everything that comes before it.
- Nothing trains or is timed: `extend` and the benches of speed stop where the work would begin (`_BOUNDARIES`).
- The text of Python is that of a few files, kernels are not compiled, and lm-eval has three of its folders of tasks.
- There is no network: a connection to anything is refused.
"""

import contextlib
import faulthandler
import importlib
import io
import itertools
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

WARNED_S = 50
"""Seconds after which a case writes to stderr where it is, ten before the time limit that ends it."""
_MEMORY = 3 * 2**30
"""Bytes that a case may map beyond what is loaded: more means that a file or a number was believed."""
_FILE = 2**30
"""Bytes that a file may have."""
_BOUNDARIES = {
    "ray.init": "Ray would start here",
    "engramctl.sweep.extend.train_extension": "training would start here",
    "engramctl.sweep.extend.measure_again": "measuring would start here",
    "engram.benchmarks.train.measure_training": "measuring would start here",
    "engram.benchmarks.workers.train_side_by_side": "measuring would start here",
    "engram.benchmarks.pack.measure_pack": "measuring would start here",
    "engramctl.sweep.bench_gpu.run_parts": "measuring would start here",
    "engram.benchmarks.memory.measure_memory": "measuring would start here",
    "engram.benchmarks.compare.measure_comparison": "measuring would start here",
    "engram.benchmarks.prefix_sharing.measure_prefix_sharing": "measuring would start here",
    "engram.benchmarks.offload_serving.measure_serving": "measuring would start here",
    "engram.benchmarks.offload_training.measure_placed_training": "measuring would start here",
}
_PRELOADED = (
    "datasets", "lm_eval", "lm_eval.tasks", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg", "pandas", "pyarrow.parquet", "ray", "ray.tune", "safetensors.torch", "scipy.optimize",
    "tokenizers", "torch", "transformers", "engram.analysis.depth", "engram.evaluation.run", "engram.training.trainer", "engram.verify",
    "engramctl.cli", "engramctl.cluster.tune", "engramctl.findings.fits", "engramctl.present.figures.draw", "engramctl.sweep.run",
)  # fmt: skip
_CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),), "os.rename": ((0, 2), (1, 3)), "os.mkdir": ((0, 2),), "os.rmdir": ((0, 1),), "os.symlink": ((1, 2),),
    "os.link": ((1, 3),), "os.truncate": ((0, None),), "os.chmod": ((0, 2),), "os.chown": ((0, 3),), "os.utime": ((0, 3),),
}  # fmt: skip
"""Audit events of changes to the disk, and which of their arguments are the paths and the folders that these are in."""


def _changed(event: str, arguments: tuple[Any, ...]) -> list[Any]:
    """The paths that an audit event is about to change, absolute."""
    if event == "open":
        path, mode, flags = arguments
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return [os.path.abspath(os.fsdecode(path))] if writes and isinstance(path, str | bytes | os.PathLike) else []
    paths = []
    for path_at, folder_at in _CHANGES.get(event, ()):
        path, folder = arguments[path_at], arguments[folder_at] if folder_at is not None else -1
        if isinstance(path, str | bytes | os.PathLike):
            base = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else os.getcwd()
            paths.append(os.path.join(base, os.fsdecode(path)))
    return paths


def _watch(written: list[str]) -> None:
    """Note every path that this process changes, and refuse connections."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo") and "127.0.0.1" not in str(arguments):
            raise ConnectionRefusedError("there is no network")
        with contextlib.suppress(OSError, ValueError):
            for path in _changed(event, arguments):
                folder, name = os.path.split(path)
                written.append(os.path.normpath(os.path.join(os.path.realpath(folder), name)))

    sys.addaudithook(hook)


def _stop(reason: str) -> Any:
    from engram.errors import UserError

    def stop(*_: Any, **__: Any) -> None:
        raise UserError(reason)

    return stop


def _load() -> None:
    warnings.simplefilter("ignore")
    for name in _PRELOADED:
        importlib.import_module(name)
    for path, reason in _BOUNDARIES.items():
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
        setattr(sys.modules[module], name, _stop(reason))
    import torch

    from engram import kernels
    from engram.corpus import python_text, sources
    from engram.evaluation import task_names, tasks

    kernels.prepare = lambda: "kernels are not compiled here"
    known = [str(task_names.definitions() / name) for name in ("mmlu", "bbh", "arc")]
    read, few_tasks = tasks._indexed, tasks._indexed(tuple(known))
    tasks._indexed = lambda folders: few_tasks if folders is None else read(folders)
    task_names._texts = lambda: (path.read_text() for folder in known for path in Path(folder).glob("*.yaml"))
    few = dict(itertools.islice(python_text.python_files().items(), 40))
    python_text.python_files = sources.python_files = lambda *_: few
    torch.set_num_threads(1)
    warnings.resetwarnings()


def _child(arguments: list[str], here: str, folder: Path) -> None:
    """Run a command line and end the process; what it printed and changed is left in files of `folder`."""
    os.setsid()
    os.chdir(here)
    for descriptor, name, flags in ((0, os.devnull, os.O_RDONLY), (1, folder / "stdout", os.O_CREAT | os.O_WRONLY | os.O_TRUNC),
                                    (2, folder / "stderr", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)):  # fmt: skip
        opened = os.open(name, flags, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w", closefd=False), "utf-8", write_through=True) for n in (1, 2))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE, _FILE))
    faulthandler.dump_traceback_later(WARNED_S, exit=False, file=2)
    written: list[str] = []
    _watch(written)
    from engramctl.cli import app

    sys.argv = ["engramctl", *arguments]
    code: Any = 0
    try:
        app(prog_name="engramctl")
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    paths = sorted(set(written))
    (folder / "written").write_text(json.dumps(paths))
    os._exit(code if isinstance(code, int) else 1)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            _child([os.fsdecode(bytes.fromhex(word)) for word in request["arguments"]], request["here"], Path(request["folder"]))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    descriptor = os.pidfd_open(pid)
    ended, _, _ = select.select([descriptor], [], [], request["timeout_s"])
    os.close(descriptor)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "hung": not ended, "wall_s": time.monotonic() - started}


def main() -> None:
    """Load everything, say so, and answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints while it is loaded is no answer
    _load()
    threads = {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()} - {
        "jemalloc_bg_thd"
    }  # that one forks well
    print(json.dumps({"threads": len(threads)}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), file=answers, flush=True)
    os._exit(0)  # there is nothing to tidy up, and everything that is loaded would take its time


if __name__ == "__main__":
    main()
