"""`engramctl fit`: what a sweep has shown, in numbers and words."""

from engram.fitting.margin import MARGIN
from engramctl.commands.options.results import JsonOption, MarginOption, ResultsOption, SweepArgument
from engramctl.commands.process import one_blas_thread
from engramctl.present import console
from engramctl.present.json import advice_as_json, fits_as_json, print_json
from engramctl.results.defaults import DEFAULT_RESULTS, DEFAULT_SWEEP, command


def fit(
    sweep: SweepArgument = DEFAULT_SWEEP,
    results: ResultsOption = DEFAULT_RESULTS,
    margin: MarginOption = MARGIN,
    as_json: JsonOption = False,
) -> None:
    """Fit loss against rho (or slots), compare variants, and say what the sweep has shown.

    Every number has a 95 % interval, from validation documents drawn again and from the noise of trials.

    First the range of rho within a margin of the best, how sure that is, and what a rho of it costs at most: what to choose from.

    rho* is where the curve is lowest, gain what it lies below rho = 1 there, crossing the rho below rho* that is as good as rho = 1.

    noise is the standard deviation of one trial, the common effect of its seed taken out.

    Example: engramctl fit allocation --json
    Example: engramctl fit allocation --margin 0.01
    """
    one_blas_thread()
    from engramctl.commands.next_step import further
    from engramctl.findings.advice import advice
    from engramctl.findings.fit_identity import fit_identity
    from engramctl.findings.fits import sweep_fits
    from engramctl.present.tables.advice import print_advice
    from engramctl.present.tables.fits import print_fits
    from engramctl.results.sweep_results import SweepResults
    from engramctl.results.trial_table import DIVERGED

    opened = SweepResults.open(results, sweep).require_finished()
    fits = sweep_fits(opened, margin=margin)
    settling = advice(opened.wanted, fits.allocation)
    if as_json:
        print_json({"identity": fit_identity(opened, margin), **fits_as_json(fits, bands=True), "advice": advice_as_json(settling)})
    else:
        print_fits(console.out(), fits)
        print_advice(console.out(), settling)
    if n := len(opened.unfinished):
        console.note(f"{n} of {len(opened.wanted)} trials have no loss; {command('status', sweep, results)} lists them")
    drawn = f"{command('plot', sweep, results)} draws this"
    left = opened.unfinished.query(f"status != '{DIVERGED}'")
    more = "" if len(left) else further(opened, fits)
    console.note(f"next: {drawn}" if not more or "report" in more else f"next: {more}; {drawn}")
