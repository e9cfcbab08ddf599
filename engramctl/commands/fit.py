"""`engramctl fit`: what a sweep has shown, in numbers and words."""

from engramctl.results_options import DEFAULT_RESULTS, DEFAULT_SWEEP, JsonOption, ResultsOption, SweepArgument, command


def fit(sweep: SweepArgument = DEFAULT_SWEEP, results: ResultsOption = DEFAULT_RESULTS, as_json: JsonOption = False) -> None:
    """Fit loss against rho (or slots), compare variants, and say what the sweep has shown.

    Every number has a 95 % interval, from validation documents drawn again and from the noise of trials.

    rho* is where the curve is lowest, gain what it lies below rho = 1 there, crossing the rho below rho* that is as good as rho = 1.

    noise is the standard deviation of one trial, the common effect of its seed taken out.

    Example: engramctl fit allocation --json
    """
    from engramctl.threads import one_blas_thread

    one_blas_thread()
    from engramctl import console
    from engramctl.fit_json import fits_as_json
    from engramctl.fit_tables import print_fits
    from engramctl.fits import sweep_fits
    from engramctl.kinds import AUTO, chosen_kinds
    from engramctl.reading import read_wanted

    read = read_wanted(results, sweep)
    fits = sweep_fits(read.store, read.wanted, chosen_kinds(AUTO, read.wanted, read.manifest, sweep))
    if as_json:
        console.print_json(fits_as_json(fits, bands=True))
    else:
        print_fits(console.out(), fits)
    n = int((read.wanted["status"] != "finished").sum())
    if n:
        console.note(f"{n} of {len(read.wanted)} trials have no loss; {command('status', sweep, results)} lists them")
    further = [one.verdict.further_seeds for one in fits.allocation.values() if one.verdict.further_seeds]
    if further:
        seeds = int(read.wanted["seed"].max()) + 1 + max(further)
        console.note(f"next: the same `engramctl sweep` command with --seeds {seeds}; {command('plot', sweep, results)} draws this")
    else:
        console.note(f"next: {command('plot', sweep, results)} draws this")
