"""Until the first step of a new process, and what trials of all rhos spend compiling: with an empty cache and with a full one."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from engram.benchmarks.gpu.environment import STEP_TOKENS, Environment, Tell
from engram.benchmarks.shapes import steps
from engram.training.machine import give_back

RHOS = (0.0, 0.2, 0.4, 0.55, 0.7, 0.8, 0.9, 1.0)
_FIRST = 3
"""Steps of a trial in which whatever is compiled is compiled."""
_CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
_SIZE = "10m"
_CODE = "from engram.benchmarks.gpu.start import begin; begin()"


def measure_start(environment: Environment, tell: Tell) -> None:
    """Start a process twice that trains all rhos for a moment; it shares nothing with this one but the corpus and the caches."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join(path or os.getcwd() for path in sys.path)
        own = os.environ | {name: str(Path(folder) / name) for name in _CACHES} | {"PYTHONPATH": path}
        given = json.dumps(asdict(environment), default=str)
        for cache in ("empty", "full"):
            started = time.time()
            done = subprocess.run([sys.executable, "-c", _CODE, given, str(started)], capture_output=True, text=True, env=own, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")
            tell(**{cache: json.loads(done.stdout.splitlines()[-1])})


def begin() -> None:
    """In the new process: train, and print when the first step was done and what compiling took."""
    given, started = json.loads(sys.argv[1]), float(sys.argv[2])
    environment = Environment(**given | {"corpus_folder": Path(given["corpus_folder"])})
    imported_s = time.time() - started
    setup = environment.setup(_SIZE, STEP_TOKENS)
    found, compiling_s = 0.0, 0.0
    for rho in RHOS:
        turn = steps(setup.trainer(setup.sparse(rho), rho))
        first = [turn(0.0)]
        found = found or time.time() - started
        first += [turn(0.0) for _ in range(_FIRST - 1)]
        # The fastest of some later steps is what a step takes; anything more in the first ones is compiling and capturing.
        compiling_s += sum(first) - _FIRST * min(turn(0.0) for _ in range(_FIRST))
        del turn
        give_back(environment.device)
    sys.stdout.write(json.dumps({"imported_s": imported_s, "first_step_s": found, "compiling_s": compiling_s, "trials": len(RHOS)}) + "\n")
