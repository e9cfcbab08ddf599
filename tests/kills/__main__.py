"""Kill sweeps at random moments, for as long as one likes: `python -m tests.kills --kills 50 --seed 0`.

A sweep in a fresh folder is started, hit, started again with the same command and hit again, until it is finished. Then it must equal a
sweep that nobody disturbed. Each kill is a line; the exit code is 1 if anything was wrong.
"""

import argparse
import json
import sys
from pathlib import Path

from tests.kills.rounds import kill_sweeps

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of moments, targets and signals (default 0)")
    parser.add_argument("--cache", type=Path, default=None, help="cache folder (default: a new one)")
    parser.add_argument("--out", type=Path, default=None, help="write every kill as JSON into this file")
    parser.add_argument("sweep", nargs="*", default=["smoke"], help="sweep and options (default smoke)")
    asked = parser.parse_args()
    kills, wrong = kill_sweeps(asked.sweep, asked.kills, asked.seed, asked.cache)
    if asked.out:
        asked.out.write_text(json.dumps({"seed": asked.seed, "sweep": asked.sweep, "wrong": wrong, "kills": kills}, indent=1) + "\n")
    for line in wrong:
        print(f"wrong: {line}")
    print(f"{len(kills)} kills, {len(wrong)} violations")
    sys.exit(1 if wrong else 0)
