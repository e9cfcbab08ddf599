import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "engram",
        "engram.benchmarks.results",
        "engram.config.trial",
        "engram.fitting.optimum",
        "engram.scaling.accounting",
        "engram.scaling.allocation",
        "engram.scaling.presets",
        "engram.scaling.recipe",
    ],
)
def test_plans_tables_and_fits_load_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
