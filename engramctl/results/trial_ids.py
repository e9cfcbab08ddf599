"""Trials as users type them: an id or the beginning of one."""

import re
from collections.abc import Iterable

from engram.errors import UserError

TRIAL_ID = re.compile(r"[0-9a-f]{12}")
"""What ids look like (`engram.config.trial.TrialConfig.id`). They become names of files, so others are refused where they are read."""

_SHOWN = 5


def find_trial(typed: str, ids: Iterable[str], sweep: str) -> str:
    """The only id that begins with what was typed; UserError when there is none, or more than one."""
    ids = set(ids)
    if typed in ids:
        return typed
    found = sorted(i for i in ids if typed and i.startswith(typed))
    if not found:
        there = ", ".join(sorted(ids)[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
        raise UserError(f"sweep {sweep} has no trial '{typed}'; it has {there or 'no trials'}")
    if len(found) > 1:
        raise UserError(f"'{typed}' begins the ids of {len(found)} trials of sweep {sweep}: {', '.join(found[:_SHOWN])}; give more of it")
    return found[0]
