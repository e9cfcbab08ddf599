"""What the fits of a sweep are of, by content."""

from engramctl.present.format import plain
from engramctl.results.fingerprints import identity
from engramctl.results.measuring_code import measuring_code
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import FINDING_COLUMNS

_COLUMNS = [name for name in FINDING_COLUMNS if name != "wall_s"]
"""How long trials took is nothing that fits depend on."""
_CODE = (
    *("engramctl.findings.fits", "engramctl.findings.losses", "engramctl.findings.document_losses"),
    *("engramctl.findings.memory", "engramctl.findings.variants", "engramctl.findings.layers"),
)


def fit_identity(sweep: SweepResults, margin: float) -> str:
    """The identity of a sweep's fits with a margin in nats per token.

    It covers rows of all wanted trials, losses on documents of the finished ones, and the code that fits.
    """
    rows = [{name: plain(value) for name, value in row.items()} for row in sweep.wanted[_COLUMNS].to_dict("records")]
    documents = {trial: sweep.store.documents / f"{trial}.parquet" for trial in sweep.finished["trial_id"]}
    there = {trial: file for trial, file in documents.items() if file.is_file()}
    return identity("fit", {"rows": rows, "documents": there, "code": measuring_code(*_CODE), "margin": margin})
