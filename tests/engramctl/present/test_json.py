import json

import pandas as pd

from engramctl.findings.allocation import allocation_summary
from engramctl.present.json import records


def test_records_are_strict_json(make_row):
    summary = allocation_summary(pd.DataFrame([make_row(0.5)]))
    (point,) = json.loads(json.dumps(records(summary), allow_nan=False))
    assert point["val_loss_sd"] is None
    assert point["seeds"] == [0]
    assert point["is_minimum"] is False
