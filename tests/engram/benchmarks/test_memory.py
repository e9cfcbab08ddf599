import pytest
import torch

from engram.benchmarks.memory import measure_memory, rows_of_a_step
from engram.scaling.allocation import TOLERANCE, spread

pytestmark = pytest.mark.usefixtures("one_thread")


def test_cases_are_compared_and_tables_that_do_not_fit_are_left_out(setup):
    speed = measure_memory(setup, seconds=0.02, rounds=2, room_bytes=100_000_000)
    cases = {case.name: case for case in speed.cases}
    assert list(cases) == ["rho 1", "rho 0.75", "rho 0.25", "tables x 16"]
    assert list(speed.left_out) == ["tables x 256"]
    assert "GB are left" in speed.left_out["tables x 256"]
    assert {name: case.against for name, case in cases.items()} == {
        "rho 1": None, "rho 0.75": "rho 1", "rho 0.25": "rho 1", "tables x 16": "rho 0.75"
    }  # fmt: skip
    assert spread([case.p_active for case in cases.values()]) <= TOLERANCE
    assert spread([case.p_total for case in cases.values() if case.table_factor == 1]) <= TOLERANCE
    assert cases["rho 1"].rows == cases["rho 1"].reads == cases["rho 1"].distinct_rows == 0
    assert cases["rho 1"].ratio is None
    assert cases["rho 0.25"].rows > cases["rho 0.75"].rows
    assert cases["tables x 16"].rows == pytest.approx(16 * cases["rho 0.75"].rows, rel=0.02)
    for case in speed.cases[1:]:
        assert case.reads == 2048 * 8
        assert 0 < case.distinct_rows <= min(case.reads, case.rows)
        assert case.ratio.low <= case.ratio.median <= case.ratio.high


def test_distinct_rows_are_those_that_a_step_touches(setup):
    trainer = setup.trainer(setup.sparse(0.5))
    batch = torch.from_numpy(trainer.batches.batch(0))
    trainer.model.loss(batch[:, :-1], batch[:, 1:])
    (table,) = trainer.model.tables()
    assert rows_of_a_step(trainer) == (batch[:, 1:].numel() * 8, len(table.touched[0][0]))
