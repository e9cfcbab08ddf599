"""A sweep that is killed again and again until it is finished, and what must hold of it meanwhile."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.kills.processes import MARK, end, find, hit, left_after, named

PROCESSES_S = 30.0
"""So long after the command's end, no process of its may be left."""
RUN_S = 400.0
"""A run that takes longer hangs."""
_DIED = "(its process died 3 times)"
"""A trial may be given up when that many of the kills hit it."""
_HEEDED_S = 15.0
"""So long a command that is told to stop may still run: its trials may just have ended."""
_OURS = re.compile(
    r"(\S+ ρ=\S+ seed=\d+: |reading text|training the tokenizer|tokenising|starting Ray|training without compiled kernels|"
    r"memory: |at a time|error: |stopped|next: |  failed: |size |\S+: \d+ (finished|failed|missing)|\d+/\d+ trials done)"
)
"""How the lines begin that `engramctl sweep` writes to stderr."""
_LOST = re.compile(r"error: Ray's (raylet|gcs_server) died; what is finished is kept, and the same command continues")
_ENDED = re.compile(r"error: this process was ended by Ray or from outside; what is finished is kept, and the same command continues")
_NOT_STARTED = re.compile(r"error: Ray does not start on this machine: ")
_STOPPED = re.compile(r"stopped; .*the same command (continues|does it again)")
_SAME = ("val_loss", "val_bpb", "train_loss", "copy_loss", "steps", "tokens", "train_flops", "status", "load_cv")
"""Columns of a trial that no kill may change; times, restarts and memory may."""


@dataclass
class Kill:
    """A kill and what came of it."""

    target: str
    signal: str
    at_s: float
    """After the one before, or the command's start; then, when it came, after the command's start."""
    victim: str = ""
    stop_s: float = 0.0
    """SIGSTOP: until SIGCONT came."""
    rows: int = 0
    """Trials that had a row."""
    code: int | None = None
    ended_s: float = 0.0
    """From the signal to the command's end."""
    gone_s: float = 0.0
    """From there until no process was left."""
    said: str = ""
    """The last line on stderr."""


class Killed:
    """The sweep in a results folder of its own, with a TMPDIR of its own.

    Args:
        sweep: name or file of the sweep, with further options.
        cache: prepared corpora and kernels.
        folder: where results and TMPDIR are made.
    """

    def __init__(self, sweep: Sequence[str], cache: Path, folder: Path) -> None:
        self.results = folder / "results"
        self.temporary = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))  # sockets need a short path
        self.command = [sys.executable, "-m", "engramctl", "sweep", *sweep, "--results", str(self.results), "--checkpoint-every", "2s"]
        self.environment = os.environ | {"ENGRAMCTL_CACHE": str(cache), "TMPDIR": str(self.temporary)}
        self.kept: dict[str, tuple[int, str]] = {}
        """Rows, curves and documents of trials that had a row: their time and content must stay."""

    def run(self, plan: Iterator[Kill], chance: random.Random) -> tuple[int | None, list[Kill], list[str]]:
        """Run the command and hit it as planned until it ends; returns its exit code, the kills that hit it, and what was wrong."""
        mark = uuid.uuid4().hex
        struck: list[Kill] = []
        wrong: list[str] = []
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as out:
            driver = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=said, env=self.environment | {MARK: mark},
                start_new_session=True, preexec_fn=_interruptible,
            )  # fmt: skip
            began = last = time.monotonic()
            for kill in plan:
                if not self._strike(kill, driver, mark, chance, began):
                    break
                struck.append(kill)
                last = time.monotonic()
            try:
                code: int | None = driver.wait(RUN_S)
            except subprocess.TimeoutExpired:
                code = None
                wrong.append(f"still runs after {RUN_S:.0f} s")
                end(left_after(mark, 0)[0])
                driver.wait()
            ended = time.monotonic()
            left, gone_s = left_after(mark, PROCESSES_S)
            wrong += [f"a process is left: {named(process)}" for process in left]
            end(left)
            said.seek(0), out.seek(0)
            lines = said.read().splitlines()
            wrong += [f"on stdout: {line}" for line in out.read().splitlines()]
        if struck:
            kill = struck[-1]
            kill.code, kill.ended_s, kill.gone_s, kill.said = code, ended - last, gone_s, (lines or [""])[-1]
            wrong += self._speech(kill, lines)
        elif code:
            wrong.append(f"exit code {code} without a kill: {lines[-1:]}")
        wrong += [f"on stderr: {line[:200]}" for line in lines if not _OURS.match(line)]
        wrong += self._files()
        return code, struck, wrong

    def _strike(self, kill: Kill, driver: subprocess.Popen[bytes], mark: str, chance: random.Random, began: float) -> bool:
        """Wait until the moment has come and the target is there; False if the command ended before."""
        victim, moment = None, time.monotonic() + kill.at_s
        while victim is None:
            if driver.poll() is not None:
                return False
            if time.monotonic() >= moment:
                victim = find(kill.target, driver.pid, mark, chance.choice)
            time.sleep(0.02)
        kill.at_s, kill.victim = time.monotonic() - began, named(victim)
        self.kept |= {name: _identity(path) for name, path in self._of_rows().items() if name not in self.kept}
        kill.rows = sum(1 for name in self.kept if name.startswith("trials/"))
        hit(victim, kill.target, getattr(signal, f"SIG{kill.signal}"), kill.stop_s)
        return True

    def _of_rows(self) -> dict[str, Path]:
        """Files of the trials that are finished."""
        found = {}
        for row in self.results.glob("*/trials/[!.]*.parquet"):
            if pq.read_table(row, columns=["status"])["status"][0].as_py() != "finished":
                continue
            for folder in ("trials", "curves", "documents"):
                found[f"{folder}/{row.name}"] = row.parents[1] / folder / row.name
        return found

    def _speech(self, kill: Kill, lines: list[str]) -> Iterator[str]:
        """What is wrong with how a command that was hit ended."""
        code = kill.code
        if code in (0, 1) and any(line.startswith("next: ") for line in lines):
            if code and not any(_DIED in line for line in lines):
                yield f"trials failed: {[line for line in lines if 'failed' in line]}"
            if kill.target in ("driver", "group") and kill.signal in ("TERM", "HUP", "INT") and kill.ended_s > _HEEDED_S:
                yield f"went on for {kill.ended_s:.0f} s as if nothing had been said"
            return
        died = _LOST if kill.target == "driver" else re.compile(f"{_LOST.pattern}|{_ENDED.pattern}")
        if (code == 1 and any(map(died.match, lines))) or (code == 2 and any(map(_NOT_STARTED.match, lines))):
            return
        if code == 130 and any(map(_STOPPED.match, lines)):
            return
        if code == -getattr(signal, f"SIG{kill.signal}") and (kill.signal == "KILL" or not lines or lines[-1].startswith("next: ")):
            return  # before the program has begun to listen, and after it has ended, a signal does what it always does
        yield f"exit code {code}, last line: {lines[-1:]}"

    def _files(self) -> Iterator[str]:
        """What is wrong on disk between two runs."""
        for path in self.results.rglob("*"):
            name = path.relative_to(self.results)
            if path.is_file() and not any(part.startswith(".") for part in name.parts) and (problem := _unreadable(path)):
                yield f"{name} can't be read: {problem}"
        there = self._of_rows()
        for name, before in self.kept.items():
            if name not in there:
                yield f"{name} was there and is lost"
            elif _identity(there[name]) != before:
                yield f"{name} was finished and has been written again"

    def finish(self, undisturbed: dict[str, Any]) -> list[str]:
        """After the sweep has ended: what differs from the run that nobody disturbed."""
        found = self.outcome()
        wrong = [
            f"{name}: {found['trials'].get(name)} instead of {values}"
            for name, values in undisturbed["trials"].items()
            if found["trials"].get(name) != values
        ]
        wrong += [f"a file that nobody needs: {name}" for name in sorted(set(found["files"]) - set(undisturbed["files"]))]
        wrong += [f"a file is missing: {name}" for name in sorted(set(undisturbed["files"]) - set(found["files"]))]
        wrong += [f"left in TMPDIR: {path.name}" for path in self.temporary.iterdir() if path.name.startswith("engramctl-ray-")]
        return wrong

    def outcome(self) -> dict[str, Any]:
        """Losses of every trial as exact text, a hash of its curve and documents, and the names of all files."""
        trials = {}
        for path in sorted(self.results.glob("*/trials/*.parquet")):
            row = pq.read_table(path).to_pylist()[0]
            values = {name: repr(row[name]) for name in _SAME}
            for table in ("curves", "documents"):
                columns = pq.read_table(path.parents[1] / table / path.name).to_pydict()
                values[table] = hashlib.sha256(repr(columns).encode()).hexdigest()
            trials[path.stem] = values
        files = sorted(str(path.relative_to(self.results)) for path in self.results.rglob("*") if path.is_file())
        return {"trials": trials, "files": files}

    def remove(self) -> None:
        """Remove its TMPDIR; the results are in the caller's folder."""
        subprocess.run(["rm", "-rf", str(self.temporary)], check=False)


def _interruptible() -> None:
    """Whoever starts us may ignore signals, as a shell does for its background jobs and `nohup` for everything; that is inherited."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _identity(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()


def _unreadable(path: Path) -> str:
    try:
        if path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                list(file.keys())
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return ""
