"""`engramctl verify FILE`"""

from pathlib import Path
from typing import Annotated

import typer

from engram.errors import UserError
from engram.foreign_files import read_json
from engramctl.commands.options.results import JsonOption
from engramctl.present import console
from engramctl.present.json import print_json


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON file of recorded numbers; docs/verify.md has the format.")],
    as_json: JsonOption = False,
) -> None:
    """Replay recorded numbers of the reference Engram module through ours, in float64.

    Ids and indices must be equal, floats within 1e-9. Exit code 1 when they are not.

    Example: engramctl verify tests/data/engram_vectors.json
    """
    from engram.verify import FLOAT_TOLERANCE, replay

    try:
        vectors = read_json(file)
    except OSError as problem:
        raise UserError(f"{file} can't be read: {problem.strerror}") from None
    except ValueError as problem:
        raise UserError(f"{file} is not JSON: {problem}") from None
    if not isinstance(vectors, dict) or not vectors.keys() & {"compression", "hashing", "fusion"}:
        raise UserError(f"{file} is not a vector file: it must be an object with compression, hashing or fusion")
    try:
        deviations = list(replay(vectors))
    except UserError as problem:
        raise UserError(f"{file} is not a whole vector file: {problem}") from None

    if as_json:
        rows = [{"part": d.part, "compared": d.compared, "largest": min(d.largest, 1e308), "ok": d.ok} for d in deviations]
        print_json({"parts": rows, "ok": all(d.ok for d in deviations)})
    else:
        cells = [
            (d.part, d.compared, f"{d.largest:.3g}", "0" if d.exact else f"{FLOAT_TOLERANCE:g}", "ok" if d.ok else "MISMATCH")
            for d in deviations
        ]
        console.out().print(console.table(("part", "numbers", "largest deviation", "allowed", ""), cells))
    wrong = [d.part for d in deviations if not d.ok]
    if wrong:
        console.note(f"{len(wrong)} of {len(deviations)} parts differ")
        raise typer.Exit(1)
    console.note(f"all {len(deviations)} parts agree")
