"""Any command line, and any damage to the files that it reads: exit code 0 or 2, one line of error, nothing written elsewhere.

`make fuzz` runs 2,000 cases with new seeds; here are 100, always the same ones. What a case is made of is in `command_lines` and `damage`,
what of the program is real in `fork_server`. A case that fails is printed as a call of the test, and becomes an `@example` or a test
beside the code that was wrong.
"""

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.engramctl.fuzz import damage
from tests.engramctl.fuzz.command_lines import GOOD, LARGEST, WRITTEN, command_lines, commands
from tests.engramctl.fuzz.readers import READERS
from tests.engramctl.fuzz.sandbox import Outcome, Runner, Sandbox, make_template, snapshot

CASES = int(os.environ.get("ENGRAMCTL_FUZZ_CASES", "100"))
"""In all; half of them are command lines, half damaged files."""
HANG_S = 60.0
ENDS_IN_1 = {("verify",), ("sweep",), ("eval",), ("extend",), ("rm",), ("bench", "sweep")}
"""Commands that say with exit code 1 that numbers differ, that trials failed, or that the answer was no."""
COMMANDS = commands()


def _settings(tests: int) -> settings:
    chosen = "ENGRAMCTL_FUZZ_CASES" in os.environ
    return settings(
        max_examples=max(1, math.ceil(CASES / 2 / tests)),
        deadline=None,
        derandomize=not chosen,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink) if chosen else (Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
        print_blob=chosen,
    )


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory, make_row, fill) -> Sandbox:
    root = tmp_path_factory.mktemp("fuzz")
    return make_template(root / "world", root / "template", make_row, fill)


@pytest.fixture(scope="module")
def runner(sandbox, tmp_path_factory):
    made = Runner(sandbox, tmp_path_factory.mktemp("fuzz-output"))
    yield made
    made.close()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_lines(words, sandbox, runner):
    @_settings(len(COMMANDS))
    @given(line=command_lines(words, COMMANDS[words]))
    def case(line):
        sandbox.renew()
        damage.prepare(sandbox.here)
        check(line, sandbox, runner)

    case()


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files(kind, sandbox, runner):
    patterns, lines = READERS[kind]
    files = [file for pattern in patterns for file in sandbox.files(pattern)]
    assert files

    @_settings(len(READERS))
    @given(
        done=st.sampled_from(files).flatmap(lambda file: st.lists(damage.damages(file), min_size=1, max_size=2)),
        line=st.sampled_from(lines),
    )
    def case(done, line):
        sandbox.renew()
        for one in done:
            damage.apply(one, sandbox.root)
        check(line, sandbox, runner)

    case()


def check(line: tuple[str, ...], sandbox: Sandbox, runner: Runner) -> Outcome:
    """Run a command line and see that it ends as it should."""
    before = dict(snapshot(sandbox.root))
    words = [word.replace("@row", sandbox.row_id).replace("@", sandbox.trial_id) for word in line]
    found = runner.run(words, HANG_S)
    command = next((path for path in COMMANDS if tuple(line[: len(path)]) == path), ())
    wrong = list(faults(found, command)) + [f"wrote {path}" for path in strays(found, words, sandbox, before)]
    assert not wrong, f"{wrong}\n{words}\nexit {found.code}, {found.wall_s:.1f} s\n{found.stderr[-3000:]}"
    return found


def faults(found: Outcome, command: tuple[str, ...]):
    """What is wrong with the end of a command."""
    lines = [one for one in re.split("[\n\r]", found.stderr) if one.strip()]
    errors = [one for one in lines if one.startswith("error: ")]
    if found.hung:
        yield "hung"
    elif found.code not in (0, 2) and not (found.code == 1 and command in ENDS_IN_1 and lines):
        yield f"exit code {found.code}"
    if "Traceback (most recent call last)" in found.stderr:
        yield "traceback"
    if found.code == 2 and (len(errors) != 1 or lines[-1] != errors[0]):
        yield "not one line of error"
    if found.code == 0 and errors:
        yield "an error with exit code 0"
    if re.search(r"\.py:\d+: \w*Warning", found.stderr):
        yield "a warning of Python"
    if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", found.stderr):
        yield "a control character"


def strays(found: Outcome, words: list[str], sandbox: Sandbox, before: dict):
    """Files that a command changed outside of the places that it was given, the cache and the temporary folder."""
    after = dict(snapshot(sandbox.root))
    changed = {str(sandbox.root / path) for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    allowed = [sandbox.root / name for name in ("cache", "tmp", "home", "here/results")]
    allowed += [Path("/dev/null"), Path("/dev/shm"), Path("/proc")]
    options = {option for command in COMMANDS.values() for p in command.params if p.name in WRITTEN for option in p.opts}
    for word, value in zip(["", *words], [*words, ""], strict=True):
        place = os.path.abspath(sandbox.here / value)
        if word in options or (value and os.path.isdir(place)):  # findings about a checkpoint lie in its folder
            allowed += [Path(place), Path(os.path.realpath(place))]
    # Ray's folder may need a shorter path than that of the temporary folder; tables of `bench offload` lie here for a while.
    gone = {path for path in found.written if re.search(r"/\.?engramctl-(ray|offload)-", path) and not os.path.lexists(path)}
    # By default an extension lies beside the checkpoint that it starts from.
    gone |= {path for path in changed | set(found.written) if "extend" in words and re.search("/here/[0-9a-f]{12}(/|$)", path)}
    # A file is written under a hidden name first.
    beside = {str(one.parent) for one in allowed}
    gone |= {path for path in found.written if path.endswith(".tmp") and os.path.dirname(path) in beside and not os.path.lexists(path)}
    for path in sorted((changed | set(found.written)) - gone):
        if not any(path == str(one) or path.startswith(f"{one}/") or str(one).startswith(f"{path}/") for one in allowed):
            yield path


def test_what_is_wrong_is_seen(sandbox, runner):
    good = Outcome(2, False, 1.0, "", "starting ...\nerror: no\n", [])
    assert not list(faults(good, ()))
    for change, command in (
        ({"code": 1}, ("status",)), ({"code": -9}, ("sweep",)), ({"code": 0}, ()), ({"hung": True}, ()), ({"stderr": ""}, ()),
        ({"stderr": "error: no\nand more\n"}, ()), ({"stderr": "error: no\nerror: no\n"}, ()), ({"stderr": "error: \x1b[2J\n"}, ()),
        ({"stderr": "Traceback (most recent call last):\nerror: no"}, ()), ({"stderr": "a.py:1: UserWarning: x\nerror: no"}, ()),
    ):  # fmt: skip
        assert list(faults(replace(good, **change), command)), change
    sandbox.renew()
    before = dict(snapshot(sandbox.root))
    found = runner.run(["corpus", "--corpus", "files:texts/*.txt", "--vocab-size", "300", "--cache", "../precious"])
    assert found.code == 0
    assert not list(strays(found, ["--cache", "../precious"], sandbox, before))
    for told in (found, replace(found, written=[])):  # by Python, and by what lies there
        assert str(sandbox.root / "precious" / "corpora") in list(strays(told, [], sandbox, before))


def test_hints_are_about_parameters_that_exist():
    assert len(COMMANDS) >= 21
    known = {parameter.name for command in COMMANDS.values() for parameter in command.params}
    assert not (GOOD.keys() | LARGEST.keys() | WRITTEN) - known
