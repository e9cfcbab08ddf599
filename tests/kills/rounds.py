"""Rounds of kills: which process is hit, with what and when, from a seed."""

import itertools
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.kills.sweep import Kill, Killed

_SIGNALS = ("KILL", "TERM", "HUP", "STOP")
HITS = [
    *itertools.product(("driver", "worker", "raylet", "gcs_server"), _SIGNALS),
    *(("group", name) for name in ("TERM", "HUP", "INT", "KILL")),
    ("driver", "INT"),
]
"""Everything that may happen: each comes once before any comes again."""
_MAX_PER_SWEEP = 6
"""Then it may finish: a finished trial must be there to be lost."""
_STOPS_S = (0.5, 3.0, 12.0, 25.0)


def kill_sweeps(
    sweep: Sequence[str], kills: int, seed: int, cache: Path | None, hits: Sequence[tuple[str, str]] = HITS, say: Any = print
) -> tuple[list[dict[str, Any]], list[str]]:
    """Kill the sweep so often; returns the kills and everything that was wrong."""
    chance = random.Random(seed)
    deck = _deck(hits, chance)
    done: list[dict[str, Any]] = []
    wrong: list[str] = []

    def note(problems: list[str]) -> list[str]:
        for problem in problems:
            say(f"     WRONG {problem}")
        return problems

    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        cache = cache or Path(folder) / "cache"
        if not (cache / "corpora").is_dir():
            first = Killed(sweep, cache, Path(folder) / "first")
            first.run(iter(()), chance)
            first.remove()
        calm = Killed(sweep, cache, Path(folder) / "undisturbed")
        began = time.monotonic()
        wrong += note(calm.run(iter(()), chance)[2])
        length = time.monotonic() - began
        undisturbed = calm.outcome()
        calm.remove()
        say(f"undisturbed: {length:.0f} s, {len(undisturbed['trials'])} trials")
        for number in itertools.count():
            if len(done) >= kills:
                break
            killed = Killed(sweep, cache, Path(folder) / str(number))
            left = min(_MAX_PER_SWEEP, kills - len(done))
            code: int | None = None
            whole = length
            while code != 0 and left:
                plan = (_kill(deck, whole if not i else length / 5, chance) for i in range(left))
                code, struck, found = killed.run(plan, chance)
                left -= len(struck)
                whole = 0.6 * length  # what is finished is not trained again
                for kill in struck:
                    done.append({"sweep": number, **asdict(kill)})
                    say(_line(len(done), kill))
                wrong += note([f"kill {len(done)}: {problem}" for problem in found])
            if code != 0:
                wrong += note([f"after kill {len(done)}: {problem}" for problem in killed.run(iter(()), chance)[2]])
            wrong += note([f"sweep {number}, finished after kill {len(done)}: {problem}" for problem in killed.finish(undisturbed)])
            killed.remove()
    return done, wrong


def _kill(deck: Iterator[tuple[str, str]], within_s: float, chance: random.Random) -> Kill:
    target, name = next(deck)
    return Kill(target, name, chance.uniform(0, within_s), stop_s=chance.choice(_STOPS_S) if name == "STOP" else 0.0)


def _deck(hits: Sequence[tuple[str, str]], chance: random.Random) -> Iterator[tuple[str, str]]:
    while True:
        yield from chance.sample(list(hits), len(hits))


def _line(number: int, kill: Kill) -> str:
    held = f" for {kill.stop_s:g} s" if kill.stop_s else ""
    end = "goes on"
    if kill.code is not None:
        end = f"exit {kill.code} {kill.ended_s:.1f} s later, no process {kill.gone_s:.1f} s after that; {kill.said[:110]}"
    return f"{number:3d} {kill.at_s:5.1f} s {kill.target:10s} {kill.signal}{held}, {kill.rows} rows: {end}"
