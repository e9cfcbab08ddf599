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
_MAX_PER_SWEEP = 4
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
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        cache = cache or Path(folder) / "cache"
        calm = Killed(sweep, cache, Path(folder) / "calm")
        calm.run(None, chance)  # fills the cache
        calm.remove()
        calm = Killed(sweep, cache, Path(folder) / "undisturbed")
        began = time.monotonic()
        wrong += calm.run(None, chance)[1]
        length = time.monotonic() - began
        undisturbed = calm.outcome()
        calm.remove()
        say(f"undisturbed: {length:.0f} s, {len(undisturbed['trials'])} trials")
        for number in itertools.count():
            if len(done) >= kills:
                break
            killed = Killed(sweep, cache, Path(folder) / str(number))
            for _ in range(min(_MAX_PER_SWEEP, kills - len(done))):
                target, name = next(deck)
                kill = Kill(target, name, chance.uniform(0, length), stop_s=chance.choice(_STOPS_S) if name == "STOP" else 0.0)
                code, found = killed.run(kill, chance)
                if kill.code is None and not kill.victim:  # the sweep was over before
                    deck = itertools.chain([(target, name)], deck)
                else:
                    done.append({"sweep": number, **asdict(kill)})
                    say(_line(len(done), kill))
                wrong += [f"kill {len(done)}: {problem}" for problem in found]
                if code == 0:
                    break
            if code != 0:
                wrong += [f"after kill {len(done)}: {problem}" for problem in killed.run(None, chance)[1]]
            wrong += [f"sweep {number}, finished after kill {len(done)}: {problem}" for problem in killed.finish(undisturbed)]
            killed.remove()
    return done, wrong


def _deck(hits: Sequence[tuple[str, str]], chance: random.Random) -> Iterator[tuple[str, str]]:
    while True:
        yield from chance.sample(list(hits), len(hits))


def _line(number: int, kill: Kill) -> str:
    held = f" for {kill.stop_s:g} s" if kill.stop_s else ""
    bad = "".join(f"\n     WRONG {problem}" for problem in kill.violations)
    return (
        f"{number:3d} {kill.at_s:5.1f} s {kill.target:10s} {kill.signal}{held}, {kill.rows} rows there: exit {kill.code} after"
        f" {kill.ended_s:.1f} s, nothing left {kill.gone_s:.1f} s later; {kill.said[:100]}{bad}"
    )
